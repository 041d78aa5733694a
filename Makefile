# make demo       install into .venv and compare the variants of scenarios/quickstart.yaml
# make test       all checks: format, lint, types, import layers, tests
# make test-all   the slow tests as well, with coverage, the kernels without their compiler, and test-ref
# make test-ref   install transformers, megatron-core and deepspeed (with torch, above 1 GB), compare routers and models with
#                 them and read files of torch
# make format     put the sources in order

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := moesim tests
# all processors; a worker that is done takes tests from another
PYTEST := $(BIN)/python -m pytest -n logical --dist worksteal

# recordings and measurements; tests that need them are skipped where it is unset
ifdef MOESIM_DATA
export MOESIM_DATA
endif

.DELETE_ON_ERROR:
.PHONY: demo test test-all test-slow test-interpreted test-ref check format clean

demo: $(VENV)/.installed
	$(BIN)/moesim compare scenarios/quickstart.yaml

test: check
	$(PYTEST) -m "not slow and not ref"

test-all: check
	$(PYTEST) -m "not ref" --cov --cov-report=term
	$(MAKE) test-interpreted
	$(MAKE) test-ref

# what test-all has beyond test, but for test-ref and tests of gigabytes
test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m "slow and not long and not ref"
	$(MAKE) test-interpreted

test-ref: $(VENV)/.installed-ref
	$(BIN)/python -m pytest -m ref tests/routing/reference tests/scenario/reference tests/recordings

# the kernels as plain Python, where wrapping integers warn, then compiled with index checks
test-interpreted: $(VENV)/.installed-dev
	NUMBA_DISABLE_JIT=1 $(PYTEST) -q -m "not slow and not ref" -W ignore::RuntimeWarning $(wildcard tests/compiled tests/routing tests/placement)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/numba-boundscheck \
		$(PYTEST) -q -m "not slow and not ref" $(wildcard tests/compiled tests/routing tests/placement tests/workload)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) install -c $(CONSTRAINTS) -e .
	touch $@

# the first pip that knows groups of dependencies is 25.1; Python 3.11 brings an older one
$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) install -c $(CONSTRAINTS) 'pip>=25.1'
	$(PIP) install -c $(CONSTRAINTS) -e . --group dev
	touch $@ $(VENV)/.installed

# about a minute where the CPU build of torch is at hand; deepspeed comes as sources and builds none of its operators
$(VENV)/.installed-ref: $(VENV)/.installed-dev
	$(PIP) install -c $(CONSTRAINTS) -e . --group dev --group ref
	touch $@
