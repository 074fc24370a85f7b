# Every target installs what it needs into $(VENV) first; the second time that is instant.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo

.PHONY: install demo test lint types pytest coverage audit hf-suite quality-table docs wheel clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The package and what draws a report: a third of what the tests need.
$(DEMO_STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[report]'
	touch $@

demo: $(DEMO_STAMP)
	$(BIN)/mmm4rec demo

test: lint types pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Each worker takes tests that stand together, so that what a module makes once is seldom made twice.
pytest: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal

# Lines and branches that the tests run, commands in processes of their own too; no part of `make test`, which it slows.
coverage: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term --cov-report=json:.cache/coverage.json

hf-suite: $(STAMP)
	$(BIN)/python tests/hf_suite/run.py

# Known vulnerabilities of the pinned versions, asked of PyPI; one that it cannot be asked about is an error.
audit:
	test -x .cache/audit/bin/pip-audit || $(PYTHON) -m venv .cache/audit
	.cache/audit/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'
	.cache/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# The main table of the quality study anew, without RecBole's rows: 2 hours at most on 2 cores. It goes on where it stopped.
RESULTS ?= .cache/quality/results
quality-table: $(STAMP)
	$(BIN)/python benchmarks/quality/baselines.py --output $(RESULTS)
	$(BIN)/python benchmarks/quality/study.py main --jobs 2 --results $(RESULTS)
	$(BIN)/python benchmarks/quality/tables.py --results $(RESULTS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; its search needs a server: $(BIN)/python -m http.server -d site"

wheel: $(STAMP)
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
