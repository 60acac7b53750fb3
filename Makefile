# Every target makes the environment that it needs; nothing else has to be installed first.
# The same targets run in CI (.ci/run).

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/bisong2017-quick
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench test check docs clean

bench: $(VENV)/.run  ## The benchmark on the MNIST inside the package: its table, and an HTML report.
	$(BIN)/synthgrad run bisong2017 --preset quick --out $(OUT)

test: $(VENV)/.test  ## Every test; those that need a browser or a GPU are skipped without one.
	$(BIN)/python -m pytest -q

check: $(VENV)/.check  ## Format, lint, types, and the built wheel in an empty environment.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python scripts/update_docs.py --check
	$(BIN)/python scripts/check_wheel.py

docs: $(VENV)/.docs  ## The documentation as a site, in site/.
	$(BIN)/mkdocs build --strict --quiet

clean:  ## Everything that can be made again (records under runs/ stay).
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) -e '.[test,check,docs]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	$(PIP) -e '.[docs]'
	@touch $@
