# Needs Python 3.11+ and make, nothing installed by hand. `make help` lists what there is.
#
#   make PYTHON=python3.13 ...    another Python for the virtual environment
#   make test ARGS="-k drain"     arguments for pytest (or for the bench)
#   make test JOBS=4              tests side by side (each spends much of its time waiting)

PYTHON ?= python3
ARGS ?=
JOBS ?= 3

VENV := .venv
PY := $(VENV)/bin/python
SCANNER := $(VENV)/scanner
CLIENTS := $(VENV)/clients
PLOTS := $(VENV)/plots
ANSIBLE := $(VENV)/ansible
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-once test test-system check lint format servers scanner clients browser screenshots ansible peers plots lock wheel bench bench-quick clean FORCE

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## .venv with everything in requirements-dev.lock (each target makes it by itself)

# The stamp holds the directory it was made in: a .venv that was copied or moved still points to where it came from.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif
$(STAMP): requirements-dev.lock pyproject.toml
	@sh .ci/venv "$(PYTHON)" $(VENV)

demo: $(STAMP) ## a small AWS, caches, natproxy and a client, told as a story, then left running (no root, no account)
	@$(PY) -m tests.demo

demo-once: $(STAMP) ## the same story, ending by itself
	@$(PY) -m tests.demo --once

test: $(STAMP) servers scanner clients browser ansible ## all tests (as root on Debian also those with real servers and network namespaces)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-system: $(STAMP) servers ansible ## the unit and the Ansible role on a Debian machine of their own (needs root on Debian; eight minutes)
	@sh .ci/system
	@$(PY) -m pytest tests/system $(ARGS)

check: lint test ## lint and test

lint: $(STAMP) ## format check, linter, types, import rule
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -c 'from importlinter.cli import lint_imports_command as main; main()' --no-logo --no-cache

format: $(STAMP) ## format the code, and put right what the linter can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

servers: ## the programs that tests talk to: installed as root on Debian, else named
	@sh .ci/servers

scanner: $(STAMP) ## the TLS scanner that a test needs, in a virtual environment of its own
	@sh .ci/extra $(PY) $(SCANNER) requirements-scan.lock "the TLS scanner" "Tests will be skipped" nassl,cryptography

clients: $(STAMP) servers ## the cluster clients that tests run, in directories of their own
	@sh .ci/extra $(PY) $(CLIENTS) requirements-clients.lock "the clients of Python" "Tests will be skipped"
	@sh .ci/node tests/clients "the clients of Node.js"

browser: $(STAMP) servers ## the accessibility scanner that the browser's tests run in the pages
	@sh .ci/node tests/browser "the accessibility scanner"

screenshots: browser ## docs/images/*.png anew, of the pages of a small world (needs Chromium)
	@$(PY) -m tests.browser.screenshots

ansible: $(STAMP) ## ansible-core and the linters of ansible/, in a virtual environment of their own
	@sh .ci/extra $(PY) $(ANSIBLE) requirements-ansible.lock "Ansible" "Tests will be skipped"

peers: ## the proxies that the bench measures: installed as root on Debian, else named
	@sh .ci/peers

plots: $(STAMP) ## what the bench draws with, in a virtual environment of its own
	@sh .ci/extra $(PY) $(PLOTS) requirements-plots.lock matplotlib "The bench will draw no plots"

lock: $(STAMP) ## write all lock files anew from pyproject.toml (LOCK_FLAGS=--upgrade for newer versions)
	@sh .ci/lock $(PY) $(LOCK_FLAGS)

wheel: $(STAMP) ## dist/natproxy-VERSION-py3-none-any.whl
	@$(PY) -m hatchling build -t wheel

bench: $(STAMP) servers peers plots ## natproxy beside other proxies: speed, memory, growth (twelve minutes; as root also in the guide's network)
	@$(PY) -m bench $(ARGS)

bench-quick: $(STAMP) servers peers ## the main rows alone, in fewer and shorter rounds (two minutes)
	@$(PY) -m bench --quick $(ARGS)

clean: ## remove .venv and everything else that was made here
	rm -rf $(VENV) tests/clients/node_modules tests/browser/node_modules dist build bench/results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find natproxy tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
