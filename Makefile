VENV ?= .venv
DEVICE ?= cpu
BIN = $(VENV)/bin

.PHONY: install test demo lint check layers test-light docs pin clean
install:        ## the environment with everything pinned; nothing happens when it is up to date
	@scripts/install-training $(DEVICE) $(VENV)

test: install   ## the whole test suite
	$(BIN)/python -m pytest

demo: install   ## a small language model learns to search, from warm-up to evaluation
	$(BIN)/r1s demo

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

check:          ## lint, types, layers, links, Dockerfiles, examples, package: no torch needed
	@scripts/check

layers:         ## both import contracts, with every import that breaks one
	@scripts/install-light check && .venv-check/bin/lint-imports --no-logo

test-light:     ## every test that needs no torch
	@scripts/install-light check && .venv-check/bin/python -m pytest -m "not training"

docs:           ## the documentation site, in site/
	@scripts/install-light docs && .venv-docs/bin/zensical build --clean --strict

pin:            ## requirements/check.txt and docs.txt again, from pyproject.toml and the .in files (needs uv)
	@scripts/pin

clean:
	rm -rf $(VENV) .venv-check .venv-docs build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
