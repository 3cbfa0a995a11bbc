# Everything runs in a virtual environment that make creates on first use; no activation needed.

PYTHON ?= python3
VENV ?= .venv
# More arguments for pytest, for example: make test ARGS="tests/crwn -x"
ARGS ?=
# Keep compiled modules even where the environment says not to, as container images do: otherwise each of the many
# processes that tests start would compile torch, Ray and MLflow again, which takes ten seconds.
export PYTHONDONTWRITEBYTECODE :=

BIN := $(VENV)/bin
# Written at the end of an installation, so that later calls of make skip it.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all chaos cluster-test lint types format docs perf perf-full gpu clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## create the virtual environment (choose with PYTHON=..., VENV=...)

quickstart: $(INSTALLED)  ## run the smallest sweep and print its table
	$(BIN)/crwn run sweeps/quickstart.yaml

# A test's marks determine which one of the next four targets runs it.
test: $(INSTALLED)  ## run the quick tests, three minutes on 2 cores (ARGS=... for pytest)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow and not chaos and not cluster" $(ARGS)

# Three processes, since one mostly waits for Ray.
test-all: $(INSTALLED)  ## run the tests that make test skips: Ray, servers, killed processes, full data sets
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder -m "slow and not chaos and not cluster" $(ARGS)

chaos: $(INSTALLED)  ## inject faults into runs, soak 500 trials, fuzz files: two hours on 2 cores
	$(BIN)/python -m pytest -m "chaos and not cluster"
	$(BIN)/python -m tests.chaos.soak
	$(BIN)/python -m tests.chaos.fuzz_store
	$(BIN)/python -m tests.chaos.fuzz_data

cluster-test: $(INSTALLED)  ## test `ray up` and Slurm in network namespaces: half an hour on 2 busy cores, as root
	$(BIN)/python -m pytest -m "cluster"

lint: $(INSTALLED)  ## check style and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)  ## check types
	$(BIN)/mypy

docs: $(INSTALLED)  ## build the documentation site in build/site; reading it needs no network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -b html . build/site
	@echo "open build/site/index.html"

perf: $(INSTALLED)  ## benchmark the engine, minutes on an idle machine; CRWN_DATA=... must hold MNIST
	$(BIN)/python -m perf.engine

perf-full: $(INSTALLED)  ## the same over whole tasks
	$(BIN)/python -m perf.engine --full

gpu: $(INSTALLED)  ## test and benchmark everything on a GPU, at most four minutes; CRWN_DATA=... may hold MNIST
	$(BIN)/python -m perf.gpu

format: $(INSTALLED)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and build artefacts; keep runs/
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find crwn orchestrator tests -type d -name __pycache__ -prune -exec rm -rf {} +

# uv installs several times faster than pip. If it is unavailable, pip installs the same versions.
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
	    echo "uv could not be installed; continuing with pip, which is slower."; \
	    $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $(INSTALLED)
