VENV ?= .venv
DEVICE ?= cpu
PROCESSES ?= 2
BIN = $(VENV)/bin

.PHONY: help install test test-long test-elasticsearch test-light check-light check-gpu demo check lint layers docs pin clean
help:               ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install:            ## install the environment with all versions pinned; does nothing if it is up to date
	@scripts/install-training $(DEVICE) $(VENV)

test: install       ## run the test suite in PROCESSES processes, 2 by default
	$(BIN)/python -m pytest --numprocesses=$(PROCESSES) --no-loadscope-reorder

test-light:         ## run the tests that do not need torch
	@scripts/install-light check && .venv-check/bin/python -m pytest -m "not (training or long or packaging or elasticsearch)"

test-long: install  ## run the tests that make test leaves out: longer training
	$(BIN)/python -m pytest -m long

test-elasticsearch: install ## run the tests that need Elasticsearch, on a server started for them
	@PYTHON=$(BIN)/python scripts/test-elasticsearch

check-light: install ## test `pip install .` alone in a fresh environment
	$(BIN)/python -m pytest -m packaging

check-gpu:          ## a new GPU environment, its imports, the engine's parser and plans; no GPU needed
	@rm -rf .venv-gpu && scripts/install-training gpu .venv-gpu
	.venv-gpu/bin/python -m pytest tests/engine/test_placement.py tests/engine/test_flash_attention.py tests/planning

demo: install       ## train a small language model to search, from SFT to evaluation
	$(BIN)/r1s demo

check:              ## check lint, types, layers, duplicates, links, Dockerfiles, scripts, examples, package (does not need torch)
	@scripts/check

lint:               ## run only ruff
	@scripts/check lint

layers:             ## check both import contracts and show every violation
	@scripts/install-light check && .venv-check/bin/lint-imports --no-logo

docs:               ## build the documentation site in site/ (does not need torch)
	@scripts/install-light docs && .venv-docs/bin/python scripts/docs_source.py && .venv-docs/bin/zensical build --clean --strict

pin:                ## update requirements/check.txt and docs.txt from pyproject.toml and the .in files (needs uv)
	@scripts/pin

clean:              ## remove the environments and tool caches
	rm -rf $(VENV) .venv-gpu .venv-check .venv-docs build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
