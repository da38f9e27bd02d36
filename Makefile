# `make setup` makes an environment, `make test` checks the project in it, `make demo` shows it at work.

# Python 3.11 is what the tests are run with most; any from 3.10 on will do: make setup PYTHON=python3.13
# Each is run, and not only looked up: a version manager's stand-in may be on the path and refuse to start.
PYTHON ?= $(shell for p in python3.11 python3; do "$$p" --version >/dev/null 2>&1 && echo "$$p" && break; done)
BIN := .venv/bin

# The pin of torch stands in constraints.txt only. It is asked for by name, in the same pip call as the
# rest, so that pip never first picks another torch for a package that depends on it.
TORCH := $(shell grep '^torch==' constraints.txt)

# Two targets at once would install into one environment, and share the cores while tests run.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup lint test test-fast smoke demo docs wheel clean

help:
	@echo 'make setup   create .venv with torchlasso and all that its tests need'
	@echo 'make test    setup, then lint, then the tests'
	@echo 'make test-fast   setup, then the quick tests, each with two cases at most: no whole runs, no other processes'
	@echo 'make smoke   setup, then each script of benchmarks/ on a hundredth of its data'
	@echo 'make demo    setup, then train a network on handwritten digits to 98 % zeros, and draw its frontier'
	@echo 'make docs    setup, then the documentation as a site, in build/site'
	@echo 'make lint    setup, then ruff, mypy, the check of the layers and of spelling'
	@echo 'make wheel   setup, then build the wheel, install it into an empty environment, and run the demo there'
	@echo 'make clean   remove .venv, caches, builds and the output of the demo'

setup: .venv/.stamp

# Modules are compiled when they are first imported, and kept: pip would compile all 24,000, for half a minute.
PIP_INSTALL := pip install --disable-pip-version-check --no-compile -c constraints.txt $(TORCH)
export PYTHONDONTWRITEBYTECODE =

# The stamp is the last thing written, so an installation that was cut off is begun again.
.venv/.stamp: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'torchlasso needs Python 3.10 or newer, and found no python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "torchlasso needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
		          "name another one: make setup PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m $(PIP_INSTALL) -e '.[dev]'
	@touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports
	$(BIN)/codespell

# One thread each: the tensors of the tests are small, and threads that wait for each other make them slower. Files are
# run in their order: by the number of their tests, files of few long tests would come last, and one worker would wait
# for the other.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: setup lint
	$(PYTEST)

# While editing: each test with two of its cases at most, and no tests marked slow, which train whole runs or start
# processes.
test-fast: setup
	$(PYTEST) -m 'not slow' --few 2 $(addprefix --ignore=tests/,cases distributed)

smoke: setup
	$(PYTEST) --dist load benchmarks/test_scripts.py

# Given to the torchlasso of .venv by `make demo`, and to that of the wheel by `make wheel`.
DEMO := train --data digits --model lenet-5 --sparsity 0.98 --epochs 100 --batch-size 32 --overwrite

demo: setup
	OMP_NUM_THREADS=1 $(BIN)/torchlasso $(DEMO) --compare dense,loss-term --out runs/demo
	$(BIN)/torchlasso report runs/demo
	OMP_NUM_THREADS=1 $(BIN)/torchlasso path --data digits --model lenet-5 --reweight 0.05 \
		--epochs 40 --epochs-each 10 --points 12 --batch-size 32 --out runs/demo-path --overwrite

wheel: setup
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel
	$(BIN)/python -m venv build/wheel/env
	build/wheel/env/bin/python -m $(PIP_INSTALL) --quiet "$$(echo build/wheel/*.whl)[sklearn]"
	cd build/wheel && OMP_NUM_THREADS=1 env/bin/torchlasso $(DEMO) --out run

docs: setup
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv build dist runs/demo runs/demo-path src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
