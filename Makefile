# Two commands matter: `make run` and `make test`. Both need only Python 3.11+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SONGS ?=

export MPLBACKEND := Agg

.PHONY: help run ui test lint bench screenshots clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[test,bench]'
	@touch $@

run: $(VENV)/.run  ## songs in, edited songs and a registered policy out (SONGS=folder for your own)
	@$(BIN)/editorbot run $(if $(SONGS),--songs "$(SONGS)")

ui: $(VENV)/.run  ## Dagster (3000), MLflow (5000) and the rating page (8000) on this machine
	@$(BIN)/editorbot ui

test: $(VENV)/.test lint  ## check style, types and layers, then run the tests, a file at a time on every core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.test  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## measure speed, memory, scaling and accuracy (SONGS=folder of annotated songs)
	$(BIN)/python -m tests.benchmarks --output .editorbot/bench.json $(if $(SONGS),--songs "$(SONGS)")

screenshots: $(VENV)/.test  ## take the README's screenshots from the last `make run`
	$(BIN)/python docs/make_screenshots.py --home .editorbot --output docs

clean:  ## remove the environment and everything local but what people said: answers and corrected beats
	rm -rf $(VENV)
	@if [ -d .editorbot ]; then \
	    find .editorbot -mindepth 1 -maxdepth 1 ! -name 'preferences.db*' ! -name corrections -exec rm -rf {} +; \
	    rmdir .editorbot 2>/dev/null || echo "kept, because it cannot be made again:" .editorbot/*; \
	fi
