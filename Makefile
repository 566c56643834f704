# Every target creates .venv on first use; see README.md. Another Python: make PYTHON=/path/to/python3.12 ...
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python3.14)
VENV := .venv
BIN := $(VENV)/bin
CHROMES := chromium chromium-browser chromium-headless-shell google-chrome google-chrome-stable
CHROMIUM := $(or $(BEARRAY_CHROMIUM),$(shell for b in $(CHROMES); do command -v $$b && break; done))
INPUTS ?= 10000
SEED ?= 0
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup quickstart smoke check audit test fuzz clean

help:
	@echo "make quickstart  the whole pipeline on the demo catalogue (minutes, no GPU, no data to download)"
	@echo "make test        lint, types and all tests"
	@echo "make check       lint, types and the dependency audit only"
	@echo "make fuzz        10,000 damaged files for every reader (INPUTS=..., SEED=...)"
	@echo "make audit       known vulnerabilities of the pinned versions; needs pypi.org"
	@echo "make smoke       the shortest sweep that passes through every part"
	@echo "make setup       only create .venv with the pinned versions"
	@echo "make clean       remove .venv and caches (never results)"

# The stamp depends on what decides the environment, so a changed pin reinstalls and an unchanged one costs
# nothing and needs no network.
$(VENV)/.installed: pyproject.toml constraints.txt
	@ok='import sys; sys.exit(sys.version_info < (3, 10))'; found=; \
	for python in $(PYTHONS); do \
		if "$$python" -c "$$ok" >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: bearray needs Python >= 3.10, and none of these is one: $(PYTHONS)." >&2; \
		echo "Install it and name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! command -v "$${CXX:-c++}" >/dev/null; then \
		echo "error: there is no C++ compiler ($${CXX:-c++}); DeepSpeed compiles a small operation on its first use." >&2; \
		echo "Install one: apt-get install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), xcode-select --install (macOS)" >&2; \
		exit 1; \
	fi; \
	$(BIN)/python -c "$$ok" >/dev/null 2>&1 && $(BIN)/python -m pip --version >/dev/null 2>&1 || \
		"$$found" -m venv --clear $(VENV) || \
		{ echo "error: $$found cannot make a virtual environment; Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the pinned versions into $(VENV); the first time takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
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
	$(BIN)/python .ci/audit.py

audit: setup
	$(BIN)/python .ci/audit.py --required

test: check
	@test -n "$(CHROMIUM)" || echo "no Chromium on this machine: the tests in a browser are NOT run (see CONTRIBUTING.md)"
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder$(if $(CHROMIUM),, -m 'not browser')

fuzz: setup
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
