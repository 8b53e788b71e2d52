# make demo: from nothing to a first result.  make test: from nothing to green tests.  Both install what they need, once.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
export WANDB_MODE ?= offline

.PHONY: demo test check format notebooks bench setup clean

demo: setup
	$(BIN)/wmzoo demo

test: setup
	@scripts/browser
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: setup
	WMZOO_NOTEBOOKS=whole $(BIN)/python -m pytest tests/test_notebooks.py

bench: setup
	$(BIN)/wmzoo bench

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wmzoo needs Python 3.11 or newer; type: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@scripts/gl
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[metaworld,dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
