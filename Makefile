# Daily: `make setup` once, `make fmt test` while working, `make check` before pushing, `make demo` when you doubt the whole.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SETUP  := $(VENV)/.setup-done

# Nothing here talks to anybody: telemetry, update checks and hubs are off.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export NO_ALBUMENTATIONS_UPDATE := 1
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export WDS_PYTORCH_WEIGHTS_ONLY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo rehearsal ablation flow test check lint types imports fmt golden bench soak wheel audit-deps sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) ## Make .venv with everything in it; a no-op when it is up to date

$(SETUP): pyproject.toml constraints.txt owl3/tools/img2dataset.txt
	@command -v c++ >/dev/null || { echo "make setup: no C++ compiler; install one (Debian: apt-get install g++)" >&2; exit 2; }
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13) and "make setup: Python 3.11 or 3.12 is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and alone: where pip's configuration offers the CPU build, the rest then keeps it
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/owl3 tools install img2dataset
	# DeepSpeed compiles its CPU communication once, here and not in the first training step
	$(BIN)/python -m owl3.train.warmup
	touch $@

demo: setup ## The whole chain on a small corpus that it makes and serves itself (6 minutes on 2 cores)
	$(BIN)/owl3 demo

rehearsal: setup ## The same, longer: a tiny model that really learns (30 minutes on 2 cores)
	$(BIN)/owl3 run flows/recipes/rehearsal.yaml --processes 2

ablation: setup ## What each piece of hyper attention is worth: 6 variants x 3 seeds of a small recipe (hours on 2 cores)
	$(BIN)/owl3 ablate flows/recipes/ablation.yaml

flow: setup ## The demo's chain as a Prefect flow with its embedded server
	$(BIN)/python -m flows.pipeline

test: setup ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

check: lint types imports test ## What CI runs: lint, types, import contracts, tests

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types
	$(BIN)/mypy

imports: setup ## Check that imports only go down and the three doors are kept
	$(BIN)/lint-imports

fmt: setup ## Format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup ## Write the golden files anew; read the diff before you commit it
	OWL3_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q -k golden

bench: setup ## Run the benchmarks behind the printed figures
	$(BIN)/owl3 bench --all

soak: setup ## Long fault tests: kill -9 again and again
	$(BIN)/python -m pytest -q tests/soak --override-ini 'addopts=' --timeout 7200

wheel: setup ## Build the package into dist/ and try it in an environment of its own
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m pytest -q tests/soak/test_wheel.py --override-ini 'addopts=' --timeout 1800

# Auditors live beside, in an environment of their own: what they need must not bend what we need.
AUDIT := $(VENV)/audit
$(AUDIT)/.done:
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	touch $@

audit-deps: $(AUDIT)/.done ## Ask for known holes in what we depend on; AUDIT_OPTIONS='--service osv' asks there instead of pypi.org
	$(PYTHON) infra/audit.py $(AUDIT)/bin/pip-audit $(AUDIT_OPTIONS) constraints.txt owl3/tools/clip.txt owl3/tools/img2dataset.txt owl3/tools/peers.txt owl3/tools/lmms.txt

sbom: setup $(AUDIT)/.done ## Write dist/sbom.json: everything that is installed, as CycloneDX
	mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json $(BIN)/python

clean: ## Remove the environment, caches and the default workspace
	rm -rf $(VENV) workspace build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
