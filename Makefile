# Two commands are enough: `make demo` to see Rollcall, `make test` to check it. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo run test test-all check bench lock format
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/run ## a filled Rollcall with a sample shop, on http://127.0.0.1:8000
	@$(BIN)/python manage.py demo

run: $(VENV)/run ## an empty Rollcall, on http://127.0.0.1:8000
	@$(BIN)/python manage.py up

test: $(VENV)/dev ## the tests that run in a few minutes, with nothing installed but Python (in CI: all)
	@$(BIN)/python -m pytest -q $(if $(CI),--durations=15 -m "not bench",-m "not slow and not browser and not bench")

test-all: $(VENV)/dev ## every test; browser tests need Debian's chromium
	@$(BIN)/python -m pytest -q -m "not bench"

check: $(VENV)/dev ## style, types, import contracts, migrations, deployment settings, templates, lock files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python manage.py makemigrations --check --dry-run
	@PUBLIC_URL=https://rollcall.example SECRET_KEY=$$(printf 'k%.0s' $$(seq 60))abcdefghij $(BIN)/python manage.py check --deploy --fail-level WARNING
	@git ls-files 'templates/*.html' | xargs -r $(BIN)/djade --target-version 5.2 --check
	@! grep -nE '(https?|file|git)[+a-z]*:/' requirements.lock requirements-dev.lock

bench: $(VENV)/dev ## the speed of what must be fast, each beside its rival; see docs/benchmarks.md
	@$(BIN)/python -m pytest -q -s -m bench tests/benchmarks

format: $(VENV)/dev ## put the code in order
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix . && git ls-files 'templates/*.html' | xargs -r $(BIN)/djade --target-version 5.2

lock: ## compile the lock files anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url requirements.in -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements.lock requirements-dev.in -o requirements-dev.lock

# The environment, made once and again whenever its lock file changes.
$(VENV)/run: requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -e $(VENV)/dev || { echo "Installing what Rollcall runs on (about a minute)…"; $(BIN)/python -m pip install -q --require-hashes -r requirements.lock; }
	@touch $@

$(VENV)/dev: requirements-dev.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what Rollcall is tested with (about a minute)…"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/run
