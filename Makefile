# Every target does its own set-up. Needed beforehand: Python 3.11 or later, pip and make. `make PYTHON=/path/to/python` chooses one.

PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$candidate"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors only; some machines' pip settings make it warn about every package.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint types wheel-check torture clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: $(VENV)/.installed ## Train codebook, prior and VAE on real digits, offline, and write a report
	$(BIN)/twostage demo $(ARGS)

test: $(VENV)/.installed-dev ## Run all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy

wheel-check: $(VENV)/.installed-dev ## Build the wheel, install it outside the checkout, run it from there
	$(BIN)/python .ci/wheel_check.py

torture: $(VENV)/.installed-dev ## The long survival tests, about an hour: kills, signals, resumes, full disk, mutated files, the cost of checkpoints
	$(BIN)/python benchmarks/survival/killed_runs.py
	$(BIN)/python benchmarks/survival/stopped_runs.py
	$(BIN)/python benchmarks/survival/resumed_steps.py
	$(BIN)/python benchmarks/survival/full_disk.py
	$(BIN)/python benchmarks/survival/mutated_files.py
	$(BIN)/python benchmarks/speed/checkpoint_cost.py --folder .

clean: ## Remove the environment, builds and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Debian's python3 comes without ensurepip: there, the system's pip fills the environment.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "twostage needs Python 3.11 or later, but none of python3, python3.13, python3.12, python3.11" \
		"is ($$(python3 --version 2>&1 | tail -1)): install one, or say make PYTHON=/path/to/python." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	@echo "Installing into $(VENV); torch is large, the first time takes some minutes."
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.created
	@echo "Installing into $(VENV); torch is large, the first time takes some minutes."
	$(PIP_INSTALL) --editable ".[dev]"
	@touch $(VENV)/.installed $@
