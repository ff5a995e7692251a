SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# written when the set-up is complete; older than these files: the set-up is done again
SETUP := $(VENV)/.setup-complete
SETUP_FILES := setup.cfg pyproject.toml constraints/current.txt
LINT_PATHS := $(wildcard sb3_iq examples tests benchmarks scripts)

# small networks on few cores: more threads only cost time, and one thread makes runs repeatable
export OMP_NUM_THREADS ?= 1

all: test

# Everything a fresh machine needs: a virtual environment in the checkout, with pinned versions.
# torch comes first, by its exact version, so that no other package chooses another build of it.
$(SETUP): $(SETUP_FILES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sb3-iq needs Python 3.10 or newer: make PYTHON=python3.x")'
	@echo "Setting up $(VENV), this takes a few minutes the first time ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$$(grep '^torch==' constraints/current.txt)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints/current.txt -e ".[tests,demo]"
	@touch $@

setup: $(SETUP)

# Offline IQ-Learn on the bundled demonstrations; options: make demo DEMO_ARGS="--steps 2000 --seed 1"
demo: $(SETUP)
	$(BIN)/python examples/demo.py $(DEMO_ARGS)

# All checks, from set-up to tests. Tests with larger demonstrations run if SB3_IQ_DEMOS names their folder.
test: check-codestyle lint type pytest

pytest: $(SETUP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Hyperparameter search by two processes, also on PostgreSQL: on a server of the script's own, installed if there is none
test-distributed: $(SETUP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints/current.txt -e ".[zoo,distributed]"
	scripts/test_distributed.sh $(BIN)/python

type: $(SETUP)
	$(BIN)/python -m mypy $(LINT_PATHS)

lint: $(SETUP)
	$(BIN)/python -m ruff check $(LINT_PATHS)

format: $(SETUP)
	$(BIN)/python -m ruff check --select I --fix $(LINT_PATHS)
	$(BIN)/python -m ruff format $(LINT_PATHS)

check-codestyle: $(SETUP)
	$(BIN)/python -m ruff check --select I $(LINT_PATHS)
	$(BIN)/python -m ruff format --check $(LINT_PATHS)

commit-checks: format type lint

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: all setup demo test pytest test-distributed type lint format check-codestyle commit-checks clean
