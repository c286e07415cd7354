VENV ?= .venv
DEVICE ?= cpu
BIN = $(VENV)/bin

.PHONY: help install test test-long test-elasticsearch test-light check-light demo check lint layers docs pin clean
help:               ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install:            ## the environment with everything pinned; does nothing when it is up to date
	@scripts/install-training $(DEVICE) $(VENV)

test: install       ## the test suite
	$(BIN)/python -m pytest

test-light:         ## every test that needs no torch
	@scripts/install-light check && .venv-check/bin/python -m pytest -m "not (training or long or packaging or elasticsearch)"

test-long: install  ## the tests that make test leaves out: more minutes of training
	$(BIN)/python -m pytest -m long

test-elasticsearch: install ## the tests that need Elasticsearch, with a server started for them
	@PYTHON=$(BIN)/python scripts/test-elasticsearch

check-light: install ## what `pip install .` alone brings, in a fresh environment
	$(BIN)/python -m pytest -m packaging

demo: install       ## a small language model learns to search, from SFT to evaluation
	$(BIN)/r1s demo

check:              ## lint, types, layers, duplicates, links, Dockerfiles, examples, package: no torch needed
	@scripts/check

lint:               ## ruff alone
	@scripts/check lint

layers:             ## both import contracts, with every import that breaks one
	@scripts/install-light check && .venv-check/bin/lint-imports --no-logo

docs:               ## the documentation site, in site/; no torch needed
	@scripts/install-light docs && .venv-docs/bin/zensical build --clean --strict

pin:                ## requirements/check.txt and docs.txt again, from pyproject.toml and the .in files (needs uv)
	@scripts/pin

clean:              ## remove the environments and what tools left
	rm -rf $(VENV) .venv-check .venv-docs build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
