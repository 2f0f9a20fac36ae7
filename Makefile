# The four commands of every day. CONTRIBUTING.md says how to make the virtual environment.
PYTHON := .venv/bin/python

.PHONY: fast test lint bench

fast: ## unit tests, in about a minute
	$(PYTHON) -m pytest -q tests/unit

test: ## all tests, as CI runs them
	$(PYTHON) -m pytest -n 3 --dist loadfile

lint: ## style, form, types and layers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: ## the main scenarios beside the peers that are installed
	$(PYTHON) -m bench --summary
