# make help lists the targets. Each sets up what it needs; nothing but Python 3.11+ and make is
# assumed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Exported, so that no shell reads what it may hold.
SQL ?= SHOW TABLES FROM xapi_analytics
override SQL := $(value SQL)
export SQL
FUZZ_SECONDS ?= 300
KILLS ?= 200
DRILL ?=

.PHONY: help run test drill fuzz audit check format query serve migrate lock docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 18

$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.13 run"; exit 1; }
	@echo "setting up $(VENV), once: about two minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

# The template's security checks, apart from the rest: they hold back what moto needs newer.
$(VENV)/checkov/ready: $(VENV)/ready
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@

# The fuzzer, apart from the rest: it is built for fewer Pythons than the product runs on.
$(VENV)/fuzz/ready: $(VENV)/ready deployment/requirements.txt
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement deployment/requirements.txt
	$(@D)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.txt \
		atheris==3.0.0 boto3
	@touch $@

run: $(VENV)/ready ## the main job from end to end, on this machine alone
	@$(BIN)/python test_unified_lambda.py

test: $(VENV)/ready ## every promise, checked against real engines
	$(BIN)/python -m pytest

drill: $(VENV)/ready ## kill loaders and servers at random: make drill KILLS=200 DRILL="--seed 7"
	$(BIN)/python -m tests.faults.drill --client-kills $(KILLS) --server-kills $(KILLS) $(DRILL)

audit: $(VENV)/ready ## known faults of what is in the package, by PyPI's advisories (asks PyPI)
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --require-hashes --disable-pip --requirement deployment/requirements.txt

fuzz: $(VENV)/fuzz/ready ## what nobody thought of: make fuzz FUZZ_SECONDS=300
	$(VENV)/fuzz/bin/python -m tests.faults.fuzz --seconds $(FUZZ_SECONDS)

check: $(VENV)/ready $(VENV)/checkov/ready ## format, lint, types, scripts, template
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run deploy.sh
	$(BIN)/cfn-lint --include-checks I --template cloudformation.yaml
	$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --framework cloudformation \
		--file cloudformation.yaml

format: $(VENV)/ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

query: $(VENV)/ready ## ask what landed: make query SQL="SELECT ..."
	@$(BIN)/python -m local.clickhouse_server --query "$$SQL"

serve: $(VENV)/ready ## what landed, on port 9000, for any ClickHouse client
	@$(BIN)/python -m local.clickhouse_server

migrate: $(VENV)/ready ## make or update the tables of the ClickHouse that CLICKHOUSE_HOST names
	@$(BIN)/python -m xapi_etl_processor migrate

docs: $(VENV)/ready ## write the generated parts of README and docs/reliability.md
	$(BIN)/python -m xapi_etl_processor.reference README.md
	$(BIN)/python -m tests.faults.matrix docs/reliability.md

lock: $(VENV)/ready ## pin what pyproject.toml asks for, for here and for the package
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --extra local --extra test pyproject.toml \
		--custom-compile-command "make lock" --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --constraint requirements.txt --generate-hashes pyproject.toml \
		--custom-compile-command "make lock" --output-file deployment/requirements.txt

clean: ## remove what make has made
	rm -rf $(VENV) xapi-etl-processor.zip .local .mypy_cache .pytest_cache .ruff_cache .hypothesis
