# make demo   install, train on solar cells, show the broken ones (five to ten minutes on two cores)
# make test   install and run the tests
# make lint   style and types
# make bench  speed and memory against PyTorch (about an hour on two cores)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: $(VENV)/demo.installed
	$(BIN)/python -m experiments.solar_cells

test: $(VENV)/test.installed
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test.installed
	$(BIN)/python -m benchmarks

# Installed again whenever the requirements change.
$(VENV)/%.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
