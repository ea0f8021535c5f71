# make run     sets everything up and makes a dataset from the prompts that come with the project
# make test    sets everything up and passes the tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Prefect's server reports home from every start otherwise, also from those of tests.
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

.PHONY: run test test-quick lint bench bench-batches ui gallery setup setup-dev lock clean

run: setup
ifeq ($(strip $(OPENAI_API_KEY)),)
	@$(BIN)/python -m flows run text_generation --rehearse
else
	@$(BIN)/python -m flows run text_generation
endif

test: setup-dev
	$(BIN)/python -m pytest

test-quick: setup-dev
	$(BIN)/python -m pytest tests/llms tests/tasks tests/flows

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
	@touch $@ $(VENV)/.runtime

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Exact versions with hashes, and without addresses, from pyproject.toml. The tests need all extras but `local`: torch is large.
EXTRAS := argilla azure clustering dask dedup images ray redis s3 truncation vectors
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
lock: setup-dev
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra dask --extra redis --extra s3 --constraint requirements.lock --output-file requirements-machines.lock
	$(LOCK) --group dev $(addprefix --extra ,$(EXTRAS)) --constraint requirements-machines.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) data .pytest_cache .ruff_cache .hypothesis
