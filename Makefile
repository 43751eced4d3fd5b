# Two commands matter: `make lab` opens the course, `make test` runs everything CI runs. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# A Python from 3.11 to 3.13: the first of these that is one. Set PYTHON=... to choose.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
RUN := OMP_NUM_THREADS=1 $(BIN)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
STATED := settings.ini constraints.txt setup.py

.PHONY: help lab test check lesson claims export replay site bench picture check-python browser

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

lab: $(VENV)/.course  ## open the course in JupyterLab (the first time it installs what it needs)
	@$(BIN)/nnlearn lab $(LAB_ARGS)

test: $(VENV)/.all $(if $(ARGS),$(if $(findstring browser,$(ARGS))$(filter tests tests/,$(ARGS)),browser),browser)  ## run everything CI runs (ARGS="tests/test_losses.py nbs/03_losses.ipynb": only that)
	@$(BIN)/python tests/tools/run_all.py $(ARGS)

check: $(VENV)/.check  ## two minutes: style, types, library in step with the notebooks, the fast tests
	@$(BIN)/python tests/tools/run_all.py --only style,types,fast

# Runs a notebook as it is, under other numerics (which tags its measured cells), and replayed on the library with other seeds.
lesson: export  ## NB=nbs/09_schedules.ipynb: run one notebook again in place, tag its measured cells, replay it
	@test -n "$(NB)" || { echo 'Say which notebook: make lesson NB=nbs/09_schedules.ipynb'; exit 2; }
	@ran=0; $(RUN)/python tests/tools/notebooks.py execute $(NB) || ran=1; \
	$(BIN)/python tests/tools/run_all.py --only one $(NB) && exit $$ran

claims: $(VENV)/.all  ## NB=nbs/09_schedules.ipynb (none: all): in how many of ten runs each assertion holds, into tests/claims/
	@$(RUN)/python tests/tools/claims.py $(NB)

export: $(VENV)/.all  ## write the library nnlearn/ from the notebooks, and clean the notebooks
	@$(BIN)/python tests/tools/notebooks.py export

site: $(VENV)/.all  ## build the site into _docs/ (with Quarto when it is installed)
	@$(BIN)/python tests/tools/site.py

bench: $(VENV)/.all  ## measure the speeds the project promises; writes tests/bench/results/
	@$(BIN)/python tests/bench/run.py $(BENCH_ARGS)

# Without TORCH it uses the pinned set; with it, an environment of its own with that torch.
ifdef TORCH
REPLAY_VENV := .venv-torch
replay: check-python
	@test -x $(REPLAY_VENV)/bin/python || "$(PYTHON)" -m venv $(REPLAY_VENV)
	@$(REPLAY_VENV)/bin/python -m pip --disable-pip-version-check install --quiet "torch==$(TORCH)" -e '.[course,dev]'
	@$(REPLAY_VENV)/bin/python tests/tools/run_all.py --only replay
else
replay: $(VENV)/.all  ## replay the lessons on the exported library (TORCH='2.9.*': with another torch)
	@$(BIN)/python tests/tools/run_all.py --only replay
endif

check-python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12 or 3.13 is needed and none was found. Install one, or say where: make PYTHON=/path/to/python3.12 ...'; exit 1; }

$(VENV)/bin/python: | check-python
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.course: $(STATED) | $(VENV)/bin/python
	@if [ ! -f $(VENV)/.all ] || [ -n "$$(find $(STATED) -newer $(VENV)/.all)" ]; then \
	  echo 'Installing the course (about 420 MB to download the first time, more where torch comes with CUDA) ...'; $(PIP) -e '.[course]'; fi
	@touch $@

$(VENV)/.check: $(STATED) | $(VENV)/bin/python
	@if [ ! -f $(VENV)/.all ] || [ -n "$$(find $(STATED) -newer $(VENV)/.all)" ]; then \
	  echo 'Installing what the fast tests need (no TensorFlow, no browser) ...'; $(PIP) -e '.[course,dev]'; fi
	@touch $@

$(VENV)/.all: $(STATED) | $(VENV)/bin/python
	@echo 'Installing everything the tests need (1.1 GB to download the first time, TensorFlow included) ...'
	@$(PIP) -e '.[all]'
	@touch $@

picture: $(VENV)/.all browser  ## draw assets/explorer.png, the picture in the README, anew
	@$(BIN)/python tests/tools/browser.py picture

# A browser for tests/browser: the system's own when there is one, Debian's package as root, else the one Playwright brings.
browser: $(VENV)/.all
	@$(BIN)/python tests/tools/browser.py
