VENV ?= .venv
DEVICE ?= cpu
BIN = $(VENV)/bin

.PHONY: install test demo lint clean
install:        ## the environment with everything pinned; nothing happens when it is up to date
	@scripts/install-training $(DEVICE) $(VENV)

test: install   ## the whole test suite
	$(BIN)/python -m pytest

demo: install   ## a small language model learns to search, from warm-up to evaluation
	$(BIN)/r1s demo

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
