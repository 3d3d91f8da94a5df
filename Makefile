# AlphaPlus: `make demo` and `make test` do all set-up; run twice, they do only what is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# PG* variables that are set win over .env.
ENV = load=1; [ -n "$$PGHOST$$DATABASE_URL" ] && load=; [ -n "$$load" ] && [ -f .env ] && { \
	saved=$$(export -p | grep -E ' (PG|ALPHAPLUS_)' || true); set -a; . ./.env; set +a; eval "$$saved"; };

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: .venv/.stamp ## the Python environment of the client side

.venv/.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "venv: Python 3.11 or later is needed; name one with: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ]; then echo "venv: installing python3-venv"; \
			apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null; \
		else echo "venv: the Debian package python3-venv is missing: apt-get install python3-venv"; exit 1; fi; }
	@echo "venv: installing the Python packages (about a minute, once)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@extras=$(EXTRAS); if [ -z "$$extras" ]; then extras=trainer,dev; \
		if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then extras=$$extras,deep; \
		else echo "venv: without the deep models (PyTorch may be gigabytes for this Python);"; \
			echo "venv: with them: rm .venv/.stamp; make EXTRAS=trainer,dev,deep venv"; fi; fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$$extras]" \
		|| { echo "venv: pip failed; is the network reachable?"; exit 1; }
	@touch $@

up: venv ## bring the server up: DATABASE_URL, else Docker, else embedded
	@docker/up up

down: ## stop the server; its data stays
	@docker/dashboards/superset down
	@docker/up down

migrate: venv ## bring the database that .env or PG* name up to date, creating it when missing
	@$(ENV) $(BIN)/alphaplus migrate

psql: ## psql as the operator
	@$(ENV) psql

dump: venv ## the whole database into a file: make dump FILE=alphaplus.dump
	@$(ENV) docker/backup dump "$(FILE)"

restore: venv ## a file of make dump as a new database: make restore FILE=alphaplus.dump INTO=name
	@docker/backup restore "$(FILE)" "$(INTO)"
	@$(ENV) PGDATABASE="$(INTO)" $(BIN)/alphaplus migrate

demo: up migrate ## from raw market files to a prediction in SQL (DATA=<folder>: on your files)
	@$(ENV) $(BIN)/alphaplus demo $(if $(DATA),--data "$(DATA)")

dashboards: up migrate ## dashboards of this database in Apache Superset, on localhost (SUPERSET_PORT=8088)
	@PYTHON="$(PYTHON)" docker/dashboards/superset up
	@$(ENV) $(BIN)/alphaplus dashboards publish

live: up migrate ## a simulated exchange, its stream, trainer and clock, to predictions and alerts of now
	@$(ENV) $(BIN)/alphaplus live $(LIVE)

TESTS = tests/sqltext tests/unit tests/server tests/db
test: up migrate ## all tests but the long ones, against the real server (under 15 minutes on 2 cores)
	@$(ENV) $(BIN)/python -m pytest -q --durations=15 -m "not long" $(TESTS)

test-long: up migrate ## the tests that take longer: statistics, whole loops, kill tests (under 40 minutes)
	@$(ENV) $(BIN)/python -m pytest -q --durations=15 -m long $(TESTS)

fuzz: up ## mutated files at the loader's door, odd arguments to every public function (SECONDS=…)
	@$(ENV) $(BIN)/python -m tests.bench._fuzz $(SECONDS)
	@$(ENV) $(BIN)/python -m tests.bench._fuzz_calls $(SECONDS)

bench: up ## measure, beside what one would do instead; writes bench.json
	@$(ENV) $(BIN)/python -m tests.bench $(BENCH)

lint: venv ## ruff, mypy, sqlfluff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --processes 2 sql migrations

docs: up migrate ## write docs/reference.md from the database's own comments
	@$(ENV) $(BIN)/alphaplus docs

clean: ## remove what can be made again, but not the data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis bench.json

destroy: ## stop the embedded server and delete this checkout's data
	@docker/server destroy
	@rm -f .env

.PHONY: help venv up down migrate psql demo dashboards live test test-long fuzz bench lint docs clean destroy
