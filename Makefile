# `make demo` runs the main job on generated data, `make test` the tests; both make their own virtual environment.
# TORCH may name a build of torch to install first, such as TORCH=torch==2.13.0 (it then constrains everything else).
# JOBS test processes run side by side.
PYTHON ?= python3
TORCH ?=
VENV ?= .venv
OUT ?= demo
JOBS ?= 2
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/nnmiss_demo -o $(OUT)

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/installed-test
	$(BIN)/ruff check .

$(VENV)/constraints.txt:
	$(PYTHON) -m venv $(VENV)
	echo "$(TORCH)" > $@
	$(if $(TORCH),$(BIN)/python -m pip install "$(TORCH)")

$(VENV)/installed: $(VENV)/constraints.txt setup.py pyproject.toml
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e ".[test,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
