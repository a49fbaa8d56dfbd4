# make test: everything that needs no Docker. make help: the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 3
DJANGO := .venv-django
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo example-mailing example-thumbnails example-leads run test check integration-test bench build clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 28

demo: $(STAMP)  ## broker, worker and a few jobs, in one terminal
	$(BIN)/python -m mqueue.demo

example-mailing: $(STAMP)  ## an e-mail pipeline: fan-out, retries, dead letters, a digest
	$(BIN)/python -m examples.mailing

example-thumbnails: $(STAMP)  ## thumbnails in a pool of processes, with limits
	$(PIP) install --requirement examples/thumbnails/requirements.txt
	$(BIN)/python -m examples.thumbnails

example-leads: $(STAMP)  ## lead enrichment: priorities, a rate limit, batches
	$(BIN)/python -m examples.leads

run: $(STAMP)  ## a broker in the foreground, with its own PostgreSQL and Valkey
	$(BIN)/mqueue broker

test: check $(DJANGO)/.installed  ## check, then all tests that need no Docker, JOBS files at a time
	$(BIN)/python -m pytest -m "not docker" -n $(JOBS) --dist loadfile

check: $(STAMP)  ## lint, format, types, imports, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/tidy

integration-test: $(STAMP)  ## the tests that start containers
	@if docker info >/dev/null 2>&1; then \
		$(BIN)/python -m pytest -m docker; \
	else \
		echo "integration-test: no Docker engine answers here, so nothing was tested"; \
	fi

bench: $(STAMP)  ## mqueue and its peers, side by side: how fast they are here
	$(BIN)/python -m benchmarks peers

build: $(STAMP)  ## the wheel, into dist/
	$(PIP) wheel . --no-deps --wheel-dir dist
	@ls dist/*.whl

clean:  ## remove all that make made
	rm -rf $(VENV) $(DJANGO) .venv-peers build dist mqueue.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mqueue needs Python 3.11 or newer and '$(PYTHON)' is not: name another with: make PYTHON=/path/to/python3"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --editable '.[broker,embedded,dev]'
	@touch $@

# Django 6 needs Python 3.12. Where ours is older its tests run in an environment of a newer Python, if there is one.
$(DJANGO)/.installed: $(STAMP)
	@mkdir -p $(DJANGO)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then :; else \
		python=$$(sh tests/contrib_django/newer_python.sh); \
		if [ -n "$$python" ]; then \
			"$$python" -m venv --clear --without-pip $(DJANGO) && \
			$(PIP) --python $(DJANGO)/bin/python install --no-compile --editable '.[django]' pytest pytest-asyncio; \
		fi; \
	fi
	@touch $@
