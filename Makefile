# Each target sets itself up: Python 3.11 or newer and pip are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint soak bench clean

# Both lines end in the CPU build of PyTorch: the constraint names the version, and an index that offers a
# CPU wheel is preferred where the environment configures one.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[check,hf,vision,jax,dev]'
	touch $@

demo: $(STAMP)
	mkdir -p out
	$(BIN)/predictor estimate examples/resnet50_h100.toml
	$(BIN)/predictor estimate examples/resnet50_h100.toml --format html -o out/resnet50_h100.html --force
	@echo "the same answer as a page: out/resnet50_h100.html"

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) out build dist *.egg-info
