# make help lists the targets. Each sets up what it needs, from Python 3.11+ and make alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The files name all that is needed, and Python compiles what it imports.
INSTALL = $(BIN)/pip install --disable-pip-version-check --no-deps --no-compile --requirement
# SQL and CMD reach their recipes through the environment, so that neither make nor a shell expands
# a $ or a quote in them.
SQL ?= SHOW TABLES FROM xapi_analytics
FORMAT ?= table
override SQL := $(value SQL)
CMD :=
override CMD := $(value CMD)
export SQL CMD
# More processes than two cores: many tests wait for a time to pass.
WORKERS ?= 3
PARALLEL = --numprocesses $(WORKERS) --dist worksteal
EXAMPLES ?= 20000
KILLS ?= 200
DRILL ?=
BENCH ?=
MUTANTS ?= 200
SEED ?= 1
ONLY ?=

ENGINES ?=
CHECK ?=

.PHONY: help run test test-fast test-ci engines stacks bench simulate mutants drill fuzz audit check format superset query serve local migrate lock docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, for example: make PYTHON=python3.13 run"; exit 1; }
	@echo "Setting up $(VENV), once: 0.25 GB to download, 0.8 GB on disk."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) requirements.txt
	@touch $@

# What running does not need: tests, checks, benchmarks.
$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	@echo "Adding what tests and checks need to $(VENV), once."
	$(INSTALL) requirements-dev.txt
	@touch $@

# The template's security checks have their own environment: they pin older versions of packages
# than moto needs.
$(VENV)/checkov/ready: $(VENV)/ready
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@

# So has the tool that makes faults: it only changes files, and the tests need none of its libraries.
$(VENV)/mutants/ready: $(VENV)/ready
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	@touch $@

# So has the second CloudFormation engine, which is a whole imitation of AWS.
$(VENV)/ministack/ready: $(VENV)/ready
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check ministack==1.5.33
	@touch $@

run: $(VENV)/ready ## run a demo on this machine; rebuilds .local/demo, needs no account
	@$(BIN)/python test_unified_lambda.py

# Without bytecode, each of the hundreds of processes that the tests start would compile all modules.
test test-fast test-ci: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/ready-dev ## run the tests, in random order: three minutes
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(VENV)/ready-dev ## run the tests that take no time: what to run after each change
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not ci and not drill"

test-ci: $(VENV)/ready-dev ## run the tests that make test leaves out: enumerations, whole deployments
	$(BIN)/python -m pytest $(PARALLEL) -m ci

bench: $(VENV)/ready-dev ## measure uploads, and the loader beside ClickHouse's importer and others: eight minutes; or make bench BENCH=--small
	@$(BIN)/python -m benchmarks $(BENCH)

simulate: $(VENV)/ready-dev ## write the tables of docs/scaling.md: five seconds
	@$(BIN)/python -m benchmarks.simulate --write

engines: $(VENV)/ready-dev ## do the same on each ClickHouse that is tried, and compare: seven minutes, and 0.5 GB for each; or ENGINES=ci
	$(BIN)/python -m tests.engines $(ENGINES)

stacks: $(VENV)/ready-dev $(VENV)/ministack/ready ## create, update and delete the stack in a second CloudFormation engine: half a minute
	$(BIN)/python -m tests.stacks $(VENV)/ministack/bin/ministack

mutants: $(VENV)/ready-dev $(VENV)/mutants/ready ## put faults into copies of the code and count what the tests catch: make mutants ONLY=storage/
	@$(VENV)/mutants/bin/python -m tests.mutants.generate --count $(MUTANTS) --seed $(SEED) \
		--only "$(ONLY)" >$(VENV)/mutants/generated.jsonl
	@$(BIN)/python -m tests.mutants $(VENV)/mutants/generated.jsonl

drill: $(VENV)/ready-dev ## kill loaders and servers at random and at steps of an insert; hold one of two before each message
	$(BIN)/python -m tests.faults.drill --client-kills $(KILLS) --server-kills $(KILLS) $(DRILL)
	$(BIN)/python -m pytest $(PARALLEL) -m drill

audit: $(VENV)/ready ## look for known vulnerabilities in the package's dependencies (asks PyPI)
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --require-hashes --disable-pip --requirement deployment/requirements.txt

fuzz: $(VENV)/ready-dev ## try thousands of unexpected bodies and payloads: make fuzz EXAMPLES=20000
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest $(PARALLEL) --timeout 3600 -k any_ tests/xapi/test_fuzz.py

check: $(VENV)/ready-dev $(VENV)/checkov/ready ## check formatting, lint, types, imports, shell scripts and the template
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/shellcheck .ci/run deploy.sh
	@# W1030: a rule of the template forbids the empty values that it warns of.
	$(BIN)/cfn-lint --include-checks I --ignore-checks W1030 --template cloudformation.yaml
	$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --framework cloudformation \
		--config-file deployment/checkov.yaml \
		--file cloudformation.yaml

# Superset lets in libraries that are too new for it and leaves two out; hence the pins and the date.
# pip would take minutes to choose among them.
$(VENV)/superset/ready: $(VENV)/ready
	@echo "Installing Superset into $(@D): 720 MB"
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check uv
	$(@D)/bin/uv pip install --quiet --no-config --exclude-newer 2026-11-30 \
		--python $(@D)/bin/python apache-superset==6.1.0 clickhouse-sqlalchemy==0.2.9 \
		flask-caching==2.3.1 rich==15.0.0 cachetools==8.0.2
	@touch $@

superset: $(VENV)/superset/ready ## show the demo in a Superset of its own; or make superset CHECK=--check
	@$(VENV)/superset/bin/python dashboards/try_superset.py $(CHECK)

format: $(VENV)/ready-dev ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

query: $(VENV)/ready ## query the demo or, inside make local, its ClickHouse: make query SQL="SELECT ..." [FORMAT=csv]
	@$(BIN)/python -m local.query --format $(FORMAT) -- "$$SQL"

serve: $(VENV)/ready ## serve the demo read-only on port 9000, for any native ClickHouse client
	@$(BIN)/python -m local.clickhouse_server --data .local/demo --read-only

local: $(VENV)/ready ## open a shell with S3 and ClickHouse for your own data; or make local CMD="..."
	@if [ -n "$$CMD" ]; then $(BIN)/python -m local -- sh -c "$$CMD"; else $(BIN)/python -m local; fi

migrate: $(VENV)/ready ## create or update the tables in the ClickHouse that CLICKHOUSE_HOST names
	@$(BIN)/python -m xapi_etl_processor migrate

docs: $(VENV)/ready-dev ## write the generated parts of the documents
	$(BIN)/python -m docs.reference
	$(BIN)/python -m tests.faults.matrix docs/reliability.md

lock: $(VENV)/ready ## pin the dependencies in pyproject.toml, for this machine and for the package
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --extra local --extra demo --extra test pyproject.toml \
		--custom-compile-command "make lock" --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --extra local --extra demo --constraint requirements-dev.txt \
		pyproject.toml --custom-compile-command "make lock" --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --constraint requirements.txt --generate-hashes pyproject.toml \
		--custom-compile-command "make lock" --output-file deployment/requirements.txt

clean: ## remove what make created, but not your own data
	rm -rf $(VENV) xapi-etl-processor.zip xapi-etl-processor.cdx.json .local/demo .local/demo-report .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@rmdir .local 2>/dev/null || true
	@if [ -e .local/clickhouse ]; then \
		echo "Your own ClickHouse data is still in .local/clickhouse"; fi
