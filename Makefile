# `make` lists the targets.  Everything installs itself into .venv, from nothing but Python 3.11.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
FILE ?=
SEEDS ?= 100
FROM ?= 0
SEED ?=
SCOPE ?= ci
SHRINK ?=
ROUNDS ?= 5
PEERS ?=
CAP ?=
MUTANTS ?=
SECONDS ?= 60
TARGET ?=
MINUTES ?= 10
FAULTS ?=
STATES ?= 20000
STORY ?=
PIP := $(RUN)/pip --disable-pip-version-check --quiet
TRACED := .coverage-venv
# Before Python 3.13 the tracer loses lines behind an exception that is thrown into a coroutine.
TRACED_PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 \
  $(wildcard $(HOME)/.pyenv/versions/3.1[3-9]*/bin/python3),\
  $(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && echo $(python))))

.DEFAULT_GOAL := help
.PHONY: help demo test coverage traced-python check lint sim fuzz chaos model crashes mutants nightly bench goals parts bench-peers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	@touch $@

$(VENV)/run.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[server,pretty,bench]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	$(PIP) install --constraint constraints.txt --group test --group lint
	@touch $@

demo: $(VENV)/run.stamp ## replicate a real file, kill its leader and a server, prove that nothing is lost (FILE=)
	@FILE='$(FILE)' $(RUN)/python examples/demo.py

test: $(VENV)/test.stamp ## the whole test suite
	$(RUN)/python -m pytest -n 2 -q

$(TRACED)/stamp: pyproject.toml constraints.txt
	@[ -n '$(TRACED_PYTHON)' ] || { echo 'coverage needs Python 3.13 or newer: TRACED_PYTHON='; exit 1; }
	$(TRACED_PYTHON) -m venv $(TRACED)
	$(TRACED)/bin/pip --disable-pip-version-check --quiet install --upgrade pip
	$(TRACED)/bin/pip --quiet install --constraint constraints.txt --editable '.[server,pretty,bench]' --group test
	@touch $@

traced-python:
	@echo $(TRACED_PYTHON)

# The sweep of crashes repeats the same lines for a minute: `make test` has it.
COVERING := $(foreach part,bench cli dev,tests/integration/test_$(part).py) tests/unit \
  --deselect tests/unit/storage/test_crashes.py::test_nothing_told_is_lost_by_a_crash_behind_any_call

coverage: $(TRACED)/stamp ## unit tests and the command's under coverage, by room; fails below the bounds
	rm -f .coverage .coverage.*
	HYPOTHESIS_PROFILE=written $(TRACED)/bin/python -m coverage run -m pytest -n 2 -q --timeout 600 $(COVERING)
	$(TRACED)/bin/python -m coverage combine -q
	$(TRACED)/bin/python -m coverage json -q -o .coverage.json
	$(TRACED)/bin/python tests/coverage_report.py .coverage.json

lint: $(VENV)/test.stamp ## style, types and the direction of imports
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/codespell src docs README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md
	$(RUN)/mypy
	$(RUN)/lint-imports

check: lint ## what to run before a commit: lint, unit tests, 50 simulated schedules
	$(RUN)/python -m pytest -n 2 -q tests/unit tests/test_tidy.py tests/test_docs.py
	$(RUN)/python -m lunalog.testing.sim --seeds 50

sim: $(VENV)/run.stamp ## simulated schedules: SEEDS=1000 FROM=0, or SEED=7 to replay one, SHRINK=1 to cut it down
	@PYTHONHASHSEED=0 $(RUN)/python -m lunalog.testing.sim $(if $(SEED),--seed $(SEED) $(if $(SHRINK),--shrink),--seeds $(SEEDS) --from $(FROM))

fuzz: $(VENV)/test.stamp ## every decoder under a coverage-guided fuzzer: SECONDS=60 each, TARGET=name for one
	@$(RUN)/python -m tests.fuzz.run --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET))

chaos: $(VENV)/run.stamp ## real processes under faults: MINUTES=10 SEED= FAULTS=kill-leader,cut (all that can run)
	@-tests/chaos/install
	@PYTHONPATH=src:tests $(RUN)/python -m chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS))

model: $(VENV)/run.stamp ## explore the protocol's models state by state, and what they miss: SCOPE=ci, nightly or mutants
	@$(RUN)/python -m lunalog.testing.model --scope $(SCOPE)

crashes: $(VENV)/test.stamp ## crash states of a server's disk: STATES=20000, or STORY="used: roll kill" alone
	@$(RUN)/python -m tests.faults.crashes --states $(STATES) --seed $(FROM) $(if $(STORY),--story "$(STORY)")

mutants: $(VENV)/run.stamp ## deliberate protocol faults, each killed by simulated schedules (CAP=20 MUTANTS='a b')
	@PYTHONHASHSEED=0 $(RUN)/python -m tests.mutants $(MUTANTS) $(if $(CAP),--cap $(CAP))

nightly: ## all the long runs, about an hour; says at its end which passed
	.ci/nightly

bench: $(VENV)/run.stamp ## every target of the README beside the yardstick (ROUNDS=5)
	$(RUN)/python bench/run.py --rounds $(ROUNDS)

goals: $(VENV)/run.stamp ## what it aims at beyond that, near the floor of the machine (ROUNDS=5)
	$(RUN)/python bench/goals.py --rounds $(ROUNDS)

parts: $(VENV)/run.stamp ## frames, log and connections alone, each beside the bare work
	$(RUN)/python bench/codec.py
	$(RUN)/python bench/wal.py
	$(RUN)/python bench/loopback.py

bench-peers: ROUNDS = 3
bench-peers: $(VENV)/run.stamp ## Kafka, BookKeeper, JetStream, Redis, etcd on the same work (PEERS=kafka,redis ROUNDS=3)
	@PYTHONPATH=bench $(RUN)/python -m peers --rounds $(ROUNDS) $(if $(PEERS),--peers $(PEERS))

clean: ## remove what was installed and cached
	rm -rf $(VENV) $(TRACED) .peers .mypy_cache .ruff_cache .hypothesis .import_linter_cache
