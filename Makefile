VENV ?= .venv
DEVICE ?= cpu
BIN = $(VENV)/bin

.PHONY: help install test test-long test-elasticsearch check-light demo check lint clean
help:               ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install:            ## the environment with everything pinned; does nothing when it is up to date
	@scripts/install-training $(DEVICE) $(VENV)

test: install       ## the test suite
	$(BIN)/python -m pytest

test-long: install  ## the tests that make test leaves out: more minutes of training
	$(BIN)/python -m pytest -m long

test-elasticsearch: install ## the tests that need Elasticsearch, with a server started for them
	@PYTHON=$(BIN)/python scripts/test-elasticsearch

check-light: install ## what `pip install .` alone brings, in a fresh environment
	$(BIN)/python -m pytest -m packaging

demo: install       ## a small language model learns to search, from warm-up to evaluation
	$(BIN)/r1s demo

check: install      ## lint, format and types, seconds each
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint: check

clean:              ## remove the environment and what tools left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
