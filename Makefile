# What a contributor types. It needs make and a Python 3.10 or later with venv and pip; all else
# goes into .venv (the package, editable, and its tools), .venv-sdk (Google's SDK, the oracle of the
# parity tests, and google-cloud-ndb, for transactions) and .venv-fuzz (atheris).

PYTHONS = python3.14 python3.13 python3.12 python3.11 python3.10 python3 python
BIN = .venv/bin
SDK_PYTHON = .venv-sdk/bin/python
SDK = appengine-python-standard==3.1.0 google-cloud-ndb
PIP_FLAGS = --quiet --disable-pip-version-check
JOBS ?= auto
# By file, since what a file's tests share can be slow to make.
PYTEST = $(BIN)/pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile
PYTEST_ARGS ?=
# How long `make nightly` takes: the latter for each of its targets.
STEPS ?= 10000
FUZZ_SECONDS ?= 600
FUZZ_TARGETS = $(basename $(notdir $(wildcard tests/fuzz/corpus/*.txt)))

.PHONY: help demo demo-rq demo-services test check all-tests nightly many-steps fuzz lint format \
  types bench docs sdk clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     run the example app at http://localhost:8080'
	@echo 'make demo-rq  the same on Redis and RQ, with a Redis of its own'
	@echo 'make demo-services  the same as three processes, with tasks among them'
	@echo 'make test     run the tests, without those that build packages'
	@echo 'make check    lint, types and all tests: what must pass before a commit'
	@echo 'make nightly  the tests that take an hour: 10,000 random steps (STEPS), fuzzers (FUZZ_SECONDS)'
	@echo 'make format   put the code into shape'
	@echo 'make bench    run every benchmark and print one table'
	@echo 'make docs     write the pages and tables of docs/ that are made from tables of the code'
	@echo 'make sdk      make the environment with Google'"'"'s SDK that parity tests ask'
	@echo 'make clean    remove what was built, environments included'

# A name on PATH is no proof: version managers leave shims behind that only print an error, and
# some distributions split ensurepip off.
define make_venv
	@if ! $(1)/bin/python -c 'import pip' >/dev/null 2>&1; then \
	  for name in $(PYTHON) $(PYTHONS); do \
	    if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
	      >/dev/null 2>&1; then found=$$name; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'No Python 3.10 or later with venv and pip was found on PATH.' >&2; \
	    echo 'Install one (on Debian: apt-get install python3-venv), or name it: make PYTHON=...' >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(1) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear $(1); \
	fi
endef

.venv/.demo-ready: setup.cfg pyproject.toml
	$(call make_venv,.venv)
	@echo 'Installing appengine-compat and what the example needs'
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[dev]'
	@touch $@

.venv/.demo-rq-ready: .venv/.demo-ready
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[dev,rq]'
	@touch $@

.venv/.test-ready: setup.cfg pyproject.toml
	$(call make_venv,.venv)
	@echo 'Installing appengine-compat and what the tests need'
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[dev,test]'
	@touch $@ .venv/.demo-ready

.venv-sdk/.ready: tests/parity/sdk_environment.py .venv/.test-ready
	@echo "Installing Google's SDK, to ask it"
	@$(BIN)/python tests/parity/sdk_environment.py .venv-sdk >/dev/null
	@touch $@

# Apart, since atheris has no builds for the newest Pythons.
.venv-fuzz/.ready: setup.cfg pyproject.toml
	$(call make_venv,.venv-fuzz)
	@echo 'Installing appengine-compat and atheris'
	@.venv-fuzz/bin/python -m pip install $(PIP_FLAGS) --editable '.[dev]' atheris cryptography
	@touch $@

sdk: .venv-sdk/.ready

demo: .venv/.demo-ready
	@cd examples/guestbook && exec ../../$(BIN)/appengine-compat dev main:app \
	  py3-web=web:app py3-tasks-io=tasks_io:app

demo-rq: .venv/.demo-rq-ready
	@exec $(BIN)/python examples/demo_rq.py

demo-services: .venv/.demo-ready
	@exec $(BIN)/python examples/demo_services.py

test: .venv/.test-ready
	@$(PYTEST) -m 'not packaging' $(PYTEST_ARGS)

# Each part is a target of its own, so that --keep-going runs the tests whatever lint has found.
check: lint types all-tests

all-tests: sdk
	@AEC_TEST_SDK_PYTHON='$(CURDIR)/$(SDK_PYTHON)' $(PYTEST) $(PYTEST_ARGS)

nightly: many-steps fuzz

many-steps: .venv/.test-ready
	@AEC_STEPS=$(STEPS) $(BIN)/pytest tests/property/test_service_model.py $(PYTEST_ARGS)

# Every target gets its time, whatever the one before has found.
fuzz: .venv-fuzz/.ready
	@failed=; \
	for target in $(FUZZ_TARGETS); do \
	  echo "Fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  .venv-fuzz/bin/python -m tests.fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=.fuzz/$$target- || failed="$$failed $$target"; \
	done; \
	if [ -n "$$failed" ]; then echo "Found something:$$failed (see .fuzz)" >&2; exit 1; fi

lint: .venv/.test-ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: .venv/.test-ready
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The legacy tree is imported as google.appengine and by no other name, so it is checked by that
# name too: the link gives mypy the place that the signpost gives Python.
types: .venv/.test-ready
	@mkdir -p .types/google
	@ln -sfn ../../appengine_compat/legacy .types/google/appengine
	@MYPYPATH=.types $(BIN)/mypy -p appengine_compat -p google.appengine

bench: .venv/.test-ready sdk
	@AEC_TEST_SDK_PYTHON='$(CURDIR)/$(SDK_PYTHON)' $(BIN)/python benchmarks/run.py

docs: .venv/.test-ready
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m tests.parity.page
	@$(BIN)/python -m tests.contract.page

clean:
	rm -rf .venv .venv-sdk .venv-fuzz .venv-3.* .types .fuzz build dist *.egg-info \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
