# Tollway. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run dev setup test test-full test-interpreter check proto proto-check lint types imports format unit lock bench bench-edge bench-http1 bench-limiter bench-auth bench-revocation chaos mutants migrate docs release-contract clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
WORKERS ?= 2
# A worker that died (a test that hung, a crash) ends the run as failed: replaced, it can leave the others waiting for ever.
WORKERS_END := --dist load --max-worker-restart 0

##@ Run
run: setup ## Start the whole stack with live traffic (Ctrl-C stops it). ARGS="--kafka --reset …"
	@$(BIN)/python -m cli up $(ARGS)

dev: setup ## As run, and restart what you change
	@$(BIN)/python -m cli dev $(ARGS)

migrate: setup ## Bring the database of the running stack, or of TOLLWAY_OWNER_DSN, to the newest schema
	@$(BIN)/python -m cli migrate up $(ARGS)

setup: $(STAMP) ## Make the virtual environment with the pinned dependencies

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) cli/supported.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "The venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@$(BIN)/python -m cli.stack.servers.redis_program
	@touch $@

##@ Test
test: setup ## Everything that needs only Python and wheels, with the coverage gate
	@$(BIN)/python -m pytest tests/unit tests/architecture tests/integration -m "not full" -n $(WORKERS) \
		$(WORKERS_END) --durations=10 --cov --cov-report= --cov-fail-under=85 $(ARGS)
	@$(BIN)/python -m pytest tests/e2e -m "not full" --durations=10 $(ARGS)

test-full: test ## As test, and the real Kafka (needs Java 17 and Maven)
	@$(BIN)/python -m pytest tests/integration tests/e2e -m full --durations=10 $(ARGS)

mutants: setup ## Break each law of tests/mutants.toml: its tests must notice. ARGS="--sample 10 --seed …"
	@$(BIN)/python -m tests.support.mutants $(ARGS)

test-interpreter: setup ## What may differ on another Python: unit tests, database, edge, a whole stack, the wheel
	@$(BIN)/python -m pytest tests/unit tests/architecture tests/integration/mesh tests/integration/edge_proxy \
		-m "not full" -n $(WORKERS) $(WORKERS_END) --durations=5 $(ARGS)
	@$(BIN)/python -m pytest tests/e2e/test_fresh_machine.py tests/e2e/test_wheel.py tests/e2e/test_first_request.py $(ARGS)

chaos: setup ## Kill, hang and cut at length, then count (minutes)
	@$(BIN)/python -m pytest tests/chaos -s --durations=10 $(ARGS)

##@ Check
check: setup proto-check lint types imports unit ## Generated code, lint, types, import rules, unit tests

proto-check: setup ## Generated code is fresh, the contract is linted and breaks no release
	@$(BIN)/python proto/generate.py --check
	@$(BIN)/python proto/access_table.py --check
	@$(BIN)/python docs/variables.py --check
	@$(BIN)/python proto/releases.py

lint: setup ## ruff: lint and format
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format --check -q . || { echo "Run make format"; exit 1; }

types: setup ## mypy, strict
	@$(BIN)/mypy mesh contract services edge_proxy graphql_gateway cli demo bench proto/generate.py proto/access_table.py proto/releases.py docs/variables.py

imports: setup ## import-linter
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

unit: setup ## Unit and architecture tests
	@$(BIN)/python -m pytest tests/unit tests/architecture -n $(WORKERS) $(WORKERS_END) $(ARGS)

##@ Generate
proto: setup ## Generate gen/python from the protos
	@$(BIN)/python proto/generate.py
	@$(BIN)/python proto/access_table.py

docs: setup ## Write docs/variables.md from the settings classes and .env.example
	@$(BIN)/python docs/variables.py

release-contract: setup ## Keep the contract as a release that later ones may not break. VERSION=0.1.0
	@test -n "$(VERSION)" || { echo "Which version? make release-contract VERSION=0.1.0"; exit 1; }
	@$(BIN)/python proto/releases.py --release $(VERSION)

format: setup ## Format the code
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lock: setup ## Pin the dependencies anew
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --extra local --extra dev --upgrade pyproject.toml -o requirements.lock

##@ Measure
bench: bench-edge bench-http1 bench-limiter bench-auth bench-revocation ## Every benchmark

bench-edge: setup ## Our edge and nginx on the same upstream and cores. DURATION= RUNS=
	@DURATION=$(DURATION) RUNS=$(RUNS) $(BIN)/python -m bench.edge $(ARGS)

bench-http1: setup ## CPU of an answered request in our HTTP server and in aiohttp's; AGAINST=<commit> beside an older one. DURATION= RUNS=
	@DURATION=$(DURATION) RUNS=$(RUNS) AGAINST=$(AGAINST) $(BIN)/python -m bench.http1 $(ARGS)

bench-limiter: setup ## CPU of a decision in the service and in Redis; AGAINST=<commit> beside an older one. DURATION= RUNS=
	@DURATION=$(DURATION) RUNS=$(RUNS) AGAINST=$(AGAINST) $(BIN)/python -m bench.limiter $(ARGS)

bench-auth: setup ## A key cold, cached and beside sign-ins; how long changes take to three edges. DURATION= RUNS= CHANGES=
	@DURATION=$(DURATION) RUNS=$(RUNS) CHANGES=$(CHANGES) $(BIN)/python -m bench.auth $(ARGS)

bench-revocation: setup ## Milliseconds from a commit to the refusal on every service and the gateway. RUNS= changes of each kind
	@RUNS=$(RUNS) $(BIN)/python -m bench.revocation $(ARGS)

##@ Tidy
clean: ## Remove the virtual environment and local data
	rm -rf $(VENV) var

help: ## This list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
