# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTHON ?=
MODEL ?=
LIMIT ?=
YES ?=

.PHONY: help setup demo test check soak bench sql failures format clean-demo contract-node

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build the environment in .venv

# The first Python that runs and is new enough: a version manager's shim may exist and still have nothing behind it.
$(STAMP): pyproject.toml constraints.txt setup.py
	@python=""; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11, 3.12 or 3.13 with venv found; install one (Debian: apt install python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c '' 2>/dev/null; then echo "setting up $(VENV) with $$($$python --version)"; $$python -m venv --clear $(VENV); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Run the main job on real text; MODEL=openai:NAME spends real money (LIMIT=N rows, YES=1 asks nothing)
	@$(BIN)/python examples/demo.py $(if $(MODEL),--model '$(MODEL)') $(if $(LIMIT),--limit '$(LIMIT)') $(if $(YES),--yes)

clean-demo: ## Forget what the demo has done
	rm -rf demo

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n 2

check: $(STAMP) ## Run what CI runs: format, lint, types, import contracts, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd .links && ../$(BIN)/lint-imports --no-cache --config ../.importlinter
	$(BIN)/python -m pytest -n 2

soak: $(STAMP) ## Run the tests that take minutes
	$(BIN)/python -m pytest -m soak --timeout 1800

bench: $(STAMP) ## Measure against the targets
	$(BIN)/python -m benchmarks

sql: $(STAMP) ## Compile persistence/statements into persistence/sql_text.py
	$(BIN)/python -m callboard.persistence.statements

failures: $(STAMP) ## Write docs/failures.md from the table of faults
	$(BIN)/python tests/conformance/faults/fault_page.py

contract-node: ## Install what the test of the SQL contract from Node needs (Node before 22.5 only)
	@if node -e "require('node:sqlite')" 2>/dev/null; then \
	  echo "Node has its own SQLite: nothing to install"; \
	else \
	  cd tests/contract && (node -e "new (require('better-sqlite3'))(':memory:')" 2>/dev/null || npm install --silent --no-audit --no-fund --no-package-lock); \
	fi

format: $(STAMP) ## Put the code into its format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
