# Each target works by itself on a fresh clone; the plain commands stand in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARALLEL := -n 2 --dist loadfile

.PHONY: quickstart test test-fast test-cluster check docs format lock clean

quickstart: $(STAMP) ## the main job: three norms on handwritten digits, a few minutes
	$(BIN)/python -m raygan.sweep sweeps/quickstart.yaml

test: test-fast ## all tests, save those that take long
	$(BIN)/python -m pytest $(PARALLEL) -m "cluster and not ray"
	$(BIN)/python -m pytest -m ray

test-fast: $(STAMP) ## the tests that start neither Ray nor servers
	$(BIN)/python -m pytest $(PARALLEL) -m "not cluster"

test-cluster: $(STAMP) ## the tests on clusters, those that take long included
	$(BIN)/python -m pytest -m cluster --soak

check: $(STAMP) ## format, lint, types, and the documentation with its links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: $(STAMP) ## the documentation, into build/docs
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,infra]'
	touch $@

lock: ## refresh the pins from pyproject.toml
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,infra,server]'
	build/lock/bin/python -m pip freeze --exclude raygan > build/constraints.txt
	! grep -nE '://| @ ' build/constraints.txt # names and versions only
	{ echo '# Pins of all dependencies; `make lock` refreshes them.'; cat build/constraints.txt; } > constraints.txt

clean:
	rm -rf $(VENV) build
