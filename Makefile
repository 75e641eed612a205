# `make demo` runs the main job on the bundled demo, `make test` the tests; both set up .venv by themselves.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE # without byte code every process of the tests compiles all of the code anew

.PHONY: demo test style format docs bench clean

demo: $(VENV)/.installed-train
	$(BIN)/python examples/demo/run.py

# two processes share two cores: threads beside them would only wait for each other
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed-dev style
	$(BIN)/python -m pytest -q -n 2

style: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_traps.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/demo/out

$(VENV)/bin/python:
	PYTHON="$(PYTHON)" bash tools/make_venv.sh $(VENV)

$(VENV)/.installed-train: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing celforge with torch into $(VENV): minutes, once"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	bash tools/system_libraries.sh $(BIN)/python
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	bash tools/system_libraries.sh $(BIN)/python
	touch $(VENV)/.installed-train $@
