# Every target creates .venv on first use; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup quickstart test check smoke clean help

help:
	@echo "make quickstart  the whole pipeline on the demo catalogue (minutes, no GPU, no download)"
	@echo "make test        lint, types and all tests"
	@echo "make check       lint and types only"
	@echo "make smoke       the shortest sweep that passes through every part"
	@echo "make clean       remove .venv and caches (never results)"

# The stamp depends on what decides the environment, so a changed pin reinstalls and an unchanged one costs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "bearray needs Python >= 3.10; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.installed

quickstart: setup
	$(BIN)/python sweeps/demo.py --storage results/quickstart

smoke: setup
	$(BIN)/python sweeps/demo.py --smoke --storage results/smoke

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
