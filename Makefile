# Everything runs in a virtual environment that make builds on first use; nothing has to be activated.

PYTHON ?= python3
VENV ?= .venv
# More arguments for pytest, for example: make test ARGS="tests/crwn -x"
ARGS ?=
# Compiled modules are kept, also where the environment says not to, as images of containers do: each of the many
# processes that tests start would compile torch, Ray and MLflow again, for ten seconds.
export PYTHONDONTWRITEBYTECODE :=

BIN := $(VENV)/bin
# Written at the end of an installation, so that later calls of make do not install again.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all chaos cluster-test lint types format docs perf perf-full gpu clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## build the virtual environment (PYTHON=..., VENV=... to choose)

quickstart: $(INSTALLED)  ## run the smallest sweep and print its table
	$(BIN)/crwn run sweeps/quickstart.yaml

# A test's marks say which of the next four targets runs it: exactly one.
test: $(INSTALLED)  ## run the quick tests, all areas in three minutes on 2 cores (ARGS=... for pytest)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow and not chaos and not cluster" $(ARGS)

# Three processes, since one of them mostly waits for Ray.
test-all: $(INSTALLED)  ## run the tests that make test leaves: Ray, servers, killed processes, whole data sets
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder -m "slow and not chaos and not cluster" $(ARGS)

chaos: $(INSTALLED)  ## kill, starve and cut off runs, a soak of 500 trials, damaged files: two hours on 2 cores
	$(BIN)/python -m pytest -m "chaos and not cluster"
	$(BIN)/python -m tests.chaos.soak
	$(BIN)/python -m tests.chaos.fuzz_store
	$(BIN)/python -m tests.chaos.fuzz_data

cluster-test: $(INSTALLED)  ## `ray up` and Slurm in network namespaces: half an hour on 2 busy cores, as root
	$(BIN)/python -m pytest -m "cluster"

lint: $(INSTALLED)  ## check style and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)  ## check the types
	$(BIN)/mypy

docs: $(INSTALLED)  ## build the documentation as a site, in build/site; reading it needs no network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -b html . build/site
	@echo "open build/site/index.html"

perf: $(INSTALLED)  ## measure the engine's speed, minutes on an idle machine; CRWN_DATA=... must hold MNIST
	$(BIN)/python -m perf.engine

perf-full: $(INSTALLED)  ## the same over whole tasks
	$(BIN)/python -m perf.engine --full

gpu: $(INSTALLED)  ## try everything on a GPU and measure it, in four minutes at most; CRWN_DATA=... may hold MNIST
	$(BIN)/python -m perf.gpu

format: $(INSTALLED)  ## put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and build artefacts; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find crwn orchestrator tests -type d -name __pycache__ -prune -exec rm -rf {} +

# uv installs several times faster than pip. Where it cannot be had, pip installs the same versions.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "crwn needs Python 3.11 or newer, but '$(PYTHON)' was not found." \
	         "Install it, or name one: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "crwn needs Python 3.11 or newer, but '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)." \
	         "Name a newer one: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): downloads about 3 GB (torch with its CUDA libraries; 6 GB installed)" \
	      "and takes a minute or more."
	@"$(PYTHON)" -m venv $(VENV)
	@if $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt uv; then \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	    echo "uv could not be installed; going on with pip, which is slower."; \
	    $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $(INSTALLED)
