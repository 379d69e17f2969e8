# Everything a new machine needs is Python 3.11 or later, git, make and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help demo test check lock clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Roadstream needs Python 3.11 or later")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'

demo: $(UV) ## Render a drive, score it, show where the answers and the report are
	@$(UV) sync --quiet --locked --inexact
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@$(BIN)/roadstream render $(DEMO)/drive --frames 60
	@$(BIN)/roadstream score $(DEMO)/drive --out $(DEMO)/answers.parquet --sort --report
	@$(BIN)/roadstream evaluate $(DEMO)/answers.parquet $(DEMO)/drive/labels.csv
	@echo "pictures: $(CURDIR)/$(DEMO)/drive"
	@echo "answers:  $(CURDIR)/$(DEMO)/answers.parquet"
	@echo "report:   $(CURDIR)/$(DEMO)/answers.html"

test: $(UV) ## Run every check and test (starts a real Kafka by itself)
	@$(UV) sync --quiet --locked --extra dev
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -n 3 --dist worksteal

check: ## Lint, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

lock: $(UV) ## Renew uv.lock
	@$(UV) lock

clean: ## Remove what was made
	rm -rf $(DEMO) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
