# The same commands for people, the README and CI.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint format bench schema clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

# One stamp: the environment is remade when what it is made from changes.
.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: .venv/.installed ## train on real digits, serve, and show accuracy against deadline
	$(BIN)/python -m benchmarks.demo

# No more processes than four: those that train have threads of their own.
test: lint ## lint, type-check and test
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

fuzz: .venv/.installed ## run the property tests on examples that differ each time
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile=default

lint: .venv/.installed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed ## put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed ## print the numbers of benchmarks/README.md, measured here and now
	$(BIN)/python -m benchmarks

schema: .venv/.installed ## write the generated contracts: manifest.schema.json and openapi.yaml
	$(BIN)/python -m bundle.schema
	$(BIN)/python -m service.contract

clean: ## remove the environment and caches
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
