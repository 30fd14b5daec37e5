# `make demo` and `make test` do all their set-up on a machine that has nothing but Python 3.11 or newer.
# PYTHON=... names the interpreter, PICTURES=... the demo's folder, ARGS=... goes to pytest or to the fault harness,
# LEDGER=... is the ledger under fault.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults setup lint style imports types format clean

VENV := .venv
PLAIN := $(VENV)/plain
RUN := $(VENV)/bin/python
SOURCES := $(wildcard *.py) $(shell find history workers controller desktop -name '*.py' 2>/dev/null)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
export PICTURES

help:
	@echo 'make demo [PICTURES=folder]   thirty real jobs on an embedded broker, and what became of them'
	@echo 'make test [ARGS=...]          all tests'
	@echo 'make faults [LEDGER=sqlite]   2,000 jobs under faults (or LEDGER=postgresql), compared with the truth'
	@echo 'make lint                     style, import contracts, types'
	@echo 'make format                   rewrites the sources in the project style'
	@echo 'make clean                    removes what the other targets made'

demo: $(VENV)/.demo-ready
	@set --; \
	case "$$PICTURES" in \
		'') ;; \
		'~') set -- --pictures "$$HOME" ;; \
		'~/'*) set -- --pictures "$$HOME/$${PICTURES#??}" ;; \
		*) set -- --pictures "$$PICTURES" ;; \
	esac; \
	exec $(VENV)/bin/jobledger demo "$$@"

test: $(VENV)/.test-ready
	$(RUN) -m pytest $(ARGS)

faults: $(VENV)/.faults-ready
	$(RUN) tests/faults/run_harness.py --ledger $(or $(LEDGER),sqlite) $(ARGS)

setup: $(VENV)/.test-ready

lint: style imports types

style: $(VENV)/.test-ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

imports: $(VENV)/.test-ready
	$(VENV)/bin/lint-imports --no-logo

# Type checkers cannot follow this layout through an editable install.
types: $(VENV)/.test-ready $(PLAIN)/.ready
	$(RUN) -m mypy --python-executable $(PLAIN)/bin/python -p jobledger
	$(RUN) -m mypy --python-executable $(PLAIN)/bin/python --explicit-package-bases tests

format: $(VENV)/.test-ready
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo-ready: pyproject.toml $(VENV)/.place
	@echo 'Installing Jobledger into $(VENV) ...'
	@$(RUN) $(PIP_INSTALL) --editable '.[controller,pictures]'
	@touch $@

$(VENV)/.test-ready: pyproject.toml $(VENV)/.place
	@echo 'Installing Jobledger and its test tools into $(VENV) ...'
	@$(RUN) $(PIP_INSTALL) --editable '.[controller,pictures,postgres,dev]'
	@touch $@ $(VENV)/.demo-ready

$(VENV)/.faults-ready: $(VENV)/.test-ready
	@$(RUN) $(PIP_INSTALL) --editable '.[controller,pictures,postgres,dev,faults]' \
		|| echo 'libfaketime could not be installed: no clock will be wrong'
	@touch $@

$(PLAIN)/.ready: pyproject.toml $(SOURCES) $(VENV)/.test-ready
	@test -x $(PLAIN)/bin/python || $(RUN) -m venv $(PLAIN)
	@rm -rf build
	@$(PLAIN)/bin/python $(PIP_INSTALL) '.[controller,pictures,postgres,dev]'
	@$(PLAIN)/bin/python $(PIP_INSTALL) --no-deps --force-reinstall .
	@rm -rf build
	@touch $@

# An environment cannot be moved: a checkout in another place gets a new one.
ifneq ($(shell cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.place
endif

$(VENV)/.place:
	@fits='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'; \
	for python in $(if $(PYTHON),'$(PYTHON)',python3.14 python3.13 python3.12 python3.11 python3); do \
		"$$python" -c "$$fits" >/dev/null 2>&1 || continue; \
		echo "Making $(VENV) with $$python ..."; \
		"$$python" -m venv --clear $(VENV) || exit 1; \
		pwd -P > $@; \
		exit 0; \
	done; \
	echo 'Jobledger needs Python 3.11 or newer with its venv module, and $(if $(PYTHON),$(PYTHON) is not that,none was found).' >&2; \
	echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12' >&2; \
	exit 1
