# Every target makes the virtual environment it needs; nothing else has to be installed first.
# Settings: PYTHON=python3.12  TORCH_INDEX=<package index with CPU builds of torch>  ARGS="..."
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help search test lint bench readme clean

PYTHON ?= python3
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
RUN_DIR := $(if $(wildcard runs/digits),runs/digits-$(shell date +%Y%m%d-%H%M%S),runs/digits)

help: ## list the targets
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-10s %s\n", $$1, $$2}'
	@echo "settings: PYTHON=python3.12  TORCH_INDEX=https://download.pytorch.org/whl/cpu  ARGS='...'"

search: $(VENV)/.installed ## compress a digits classifier for the edge NPU (ARGS="..." is passed on)
	$(VENV_PYTHON) -m ajpq.search --target edge-npu --config digits --run-dir $(RUN_DIR) $(ARGS)

test: $(VENV)/.installed-test ## run the tests (ARGS="..." is passed on to pytest)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-test ## style, types and the import contract
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-test ## run a benchmark: make bench NAME=throughput (QUICK=1: a short form)
	@test -n "$(NAME)" && test -f "benchmarks/$(NAME).py" || { \
		echo "no benchmark '$(NAME)'; usage: make bench NAME=<one of benchmarks/*.py>" >&2; exit 2; }
	$(VENV_PYTHON) -m benchmarks.$(NAME) $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

readme: $(VENV)/.installed ## rewrite the README's tables from benchmarks/results/
	$(VENV_PYTHON) -m benchmarks.readme

clean: ## remove the virtual environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv writes: an interrupted set-up is begun again.
$(VENV)/bin/pip:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "'$(PYTHON)' not found; name a Python >= 3.11: make PYTHON=/path/to/python3 ..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "AJPQ needs Python >= 3.11, '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1);" \
			"name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e '.[export]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e '.[test]'
	@touch $(VENV)/.installed $@
