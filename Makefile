SHELL := /bin/bash
PYTHON ?= python3
# Two stacks, see docs/guide/install.md: today's Stable-Baselines3, and the older one that the library imitation lives with
VENV := .venv
VENV_IMITATION := .venv-imitation
BIN := $(VENV)/bin
# written when a set-up is complete; older than the files it depends on: the set-up is done again
SETUP := $(VENV)/.setup-complete
SETUP_IMITATION := $(VENV_IMITATION)/.setup-complete
LINT_PATHS := $(wildcard sb3_iq startup examples tests benchmarks scripts docs setup.py)

# small networks on few cores: more threads only cost time, and one thread makes runs repeatable
export OMP_NUM_THREADS ?= 1

all: test

# Everything a fresh machine needs: virtual environments in the checkout, with pinned versions.
# torch comes first, by its exact version, so that no other package chooses another build of it.
PINS = $(filter constraints/%,$^)
%/.setup-complete: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sb3-iq needs Python 3.10 or newer: make PYTHON=python3.x")'
	@echo "Setting up $*, this takes a few minutes the first time ..."
	@test -x $*/bin/pip || $(PYTHON) -m venv $*
	@$*/bin/python -m pip install -qq --disable-pip-version-check "$$(grep '^torch==' $(PINS))"
	@$*/bin/python -m pip install -qq --disable-pip-version-check -c $(PINS) -e ".[$(EXTRAS)]"
	@touch $@

$(SETUP): constraints/current.txt
$(SETUP): EXTRAS := tests,demo,docs,zoo,compare,export,minari
# after the other one: both write the same metadata of the package into the checkout
$(SETUP_IMITATION): constraints/imitation.txt | $(SETUP)
$(SETUP_IMITATION): EXTRAS := tests,demo,zoo,imitation,compare

setup: $(SETUP) $(SETUP_IMITATION)

# Offline IQ-Learn on the bundled demonstrations; options: make demo DEMO_ARGS="--steps 2000 --seed 1"
demo: $(SETUP)
	$(BIN)/python examples/demo.py $(DEMO_ARGS)

# All checks, from set-up to the tests on both stacks. Tests with larger demonstrations run if SB3_IQ_DEMOS names their folder.
test: setup check-codestyle lint
	@$(MAKE) --no-print-directory --keep-going -j 2 --output-sync=target type doc
	@$(MAKE) --no-print-directory --keep-going pytest pytest-imitation

# A process a core; one that has done its tests takes over some of another's. PARALLEL= runs them in one process, for --pdb.
# Options of pytest: make pytest-fast PYTEST_ARGS="-x -k replay"
PARALLEL := -n auto --dist worksteal

# The check while working: today's stack without the tests that are marked as slow (-m slow: these alone)
pytest-fast: $(SETUP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(PYTEST_ARGS)

# Today's stack: all tests
pytest: $(SETUP)
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

# The older stack: what can differ there. These are all quick tests, and of the slow ones those about the library imitation or
# about what SB3, gymnasium or RL Zoo do (marked as both_stacks); what only learns longer is learned once, on today's stack
pytest-imitation: $(SETUP_IMITATION)
	$(VENV_IMITATION)/bin/python -m pytest $(PARALLEL) -m "not slow or both_stacks" $(PYTEST_ARGS)

# The documentation, in docs/_build/html. Everything is read anew (-E), so that a warning, which is an error, is never missed
doc: $(SETUP)
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

# Hyperparameter search by two processes, also on PostgreSQL: on a server of the script's own, installed if there is none. And a
# comparison on a Ray cluster of two nodes, one of which is killed
test-distributed: $(SETUP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints/current.txt -e ".[zoo,distributed,compare,ray]"
	scripts/test_distributed.sh $(BIN)/python
	$(BIN)/python scripts/test_ray.py

# Stable-Baselines3's own tests with IQLearn in the place of SAC and DQN, on both stacks, and imitation's own tests of SQIL with
# IQLearnTrainer in its place. They are downloaded, and take a while
test-sb3: $(SETUP) $(SETUP_IMITATION)
	$(BIN)/python scripts/test_sb3.py
	$(VENV_IMITATION)/bin/python scripts/test_sb3.py
	$(VENV_IMITATION)/bin/python scripts/test_imitation.py

# The source distribution and the wheel, in dist/, checked as a package index would
package: $(SETUP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints/current.txt twine
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

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
	rm -rf build dist demo docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: all setup demo test pytest pytest-fast pytest-imitation test-distributed test-sb3 doc package type lint format check-codestyle commit-checks clean
