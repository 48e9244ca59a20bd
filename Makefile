# Two commands matter: `make serve` and `make test`. Everything happens inside .venv; a second run of a
# target does no installation work until pyproject.toml or the native sources change.
#
#   make serve ARGS="--model-id ./my-model --port 9000"
#   make test ARGS="tests/settings -k ranges"
#
# PYTHON chooses the interpreter (3.11 or newer), TORCH=cpu or TORCH=default the build of torch
# (unset: the CPU build on Linux without an NVIDIA GPU).

PYTHON ?= python3
VENV ?= .venv
TORCH ?= auto
ARGS ?=
BIN := $(VENV)/bin
NATIVE := setup.py $(wildcard csrc/*.* csrc/*/*)

.DEFAULT_GOAL := help
.PHONY: help serve install test test-all test-clients test-ui web check format docs bench sanitize clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

serve: $(VENV)/.installed  ## Serve the demo model on http://127.0.0.1:8080 (ARGS="--model-id ... --port ...")
	@exec $(BIN)/tgi serve $(ARGS)

install: $(VENV)/.installed  ## Install into .venv

test: $(VENV)/.installed-dev  ## Run the tests (ARGS="tests/api -k name")
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-all: $(VENV)/.installed-dev  ## Run all tests, the slow ones too
	@$(BIN)/python -m pytest $(ARGS)

test-clients: $(VENV)/.installed-dev  ## Run other people's client libraries against the server (downloads them once)
	@$(BIN)/python -m pytest tests/clients $(ARGS)

test-ui: $(VENV)/.installed-dev  ## Run the tests of the pages in Chromium (apt-get install chromium)
	@$(BIN)/python -m pytest tests/ui $(ARGS)

web: $(VENV)/.installed-dev  ## Build the pages from web/ (fetches their packages from npm's registry)
	@$(BIN)/python tools/check_web.py --write

check: $(VENV)/.installed-dev  ## Lint, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## Format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## Write the generated pages in docs/ and the site in site/, links and anchors checked
	$(BIN)/python tools/generate_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "written: site/index.html"

bench: $(VENV)/.installed-dev  ## Measure speed on this machine
	$(BIN)/python -m benchmarks.engine $(ARGS)
	$(BIN)/python -m benchmarks.serving $(ARGS)

sanitize: $(VENV)/.installed-dev  ## Test the native kernels under the address and undefined-behaviour sanitizers
	@$(BIN)/python tools/sanitize_kernels.py $(ARGS)

clean:  ## Remove .venv and caches
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info

$(VENV)/.installed: pyproject.toml tools/install.py $(NATIVE)
	@$(PYTHON) tools/install.py --venv $(VENV) --torch $(TORCH)

$(VENV)/.installed-dev: pyproject.toml tools/install.py $(NATIVE)
	@$(PYTHON) tools/install.py --venv $(VENV) --torch $(TORCH) --dev
