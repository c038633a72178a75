# `make demo` and `make test` need nothing but Python >= 3.12 (see tools/find-python.sh) and do all the set-up.
.DEFAULT_GOAL := help
SOAK_SEC ?= 1800
SEC ?= 1800
TOGETHER_SEC ?= 3600
N ?= 2000
.PHONY: help demo test test-harbor ci-fresh lint faults hosts refusals podman conversation soak one-answer together bench pictures examples docs lock clean venv

python := .venv/bin/python
# The sandbox environment is made of Linux namespaces; elsewhere the demo uses Docker.
environment := $(if $(filter Linux,$(shell uname -s)),sandbox,docker)
# Tests wait for each other's processes more than they work: three at once keep two processors busy.
jobs ?= 3
# Where the environment forbids it to keep what it has compiled, each of the thousands of programs that tests start would compile all anew.
# Unbuffered, programs would write as no user's do.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 14

demo: venv ## run the example tasks with the agents oracle and nop, and show what came of it
	@rm -rf build/demo
	@mkdir -p build/demo
	$(python) -m parallelhassnes run examples/tasks -a oracle -a nop -k 2 -e $(environment) --root build/demo --fail-on never

test: venv ## run the tests; says what it had to skip and how to get it
	@$(python) -m pytest -n $(jobs) -p pytest_rerunfailures --reruns 1 -r fER $(args)

test-harbor: venv ## run the tests that speak with Harbor with the newest one that is supported; make test has the oldest
	@tools/venv-harbor.sh
	@build/harbor-newest/.venv/bin/python -m pytest -m harbor -n $(jobs) -p pytest_rerunfailures --reruns 1 -r fER $(args)

ci-fresh: ## run .ci/run on a Debian made for it, as root; args='.ci/system' for a part
	@tools/ci-fresh.sh $(args)

lint: venv ## style, types, layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

faults: venv ## kill at every act of submit, cancel, retry, import, pack, gc, archive, reuse, regrade, tick, supervisor and worker; takes an hour
	@for scenario in steps operate trial import pack reuse regrade gc archive local; do PYTHONPATH=.:tests:tests/support $(python) -m tests.faults.enumerate $$scenario || exit 1; done

refusals: venv ## send every refusal of a provider in tests/data to the real agents; takes some minutes
	@REFUSALS=all $(python) -m pytest tests/steps/test_provider_refusals.py $(args)

podman: venv ## ask Podman's real engine what died under a trial; needs podman and podman-compose
	@PODMAN=1 $(python) -m pytest tests/steps/test_trial_podman.py $(args)

conversation: venv ## have a simulated user of Harbor's speak with an agent; needs acpx, Claude Code and Node 20
	@CONVERSATION=1 $(python) -m pytest tests/steps/test_simulated_user.py $(args)

soak: venv ## random kills, stops, edits, clock jumps, upgrades and a refusing disk under load, 30 minutes; SOAK_SEC=600 for ten
	@PYTHONPATH=.:tests:tests/support $(python) -m tests.faults.soak --seconds $(SOAK_SEC) --trials --disturb

hosts: venv ## three hosts on one root that lose power, are cut off and come back, 30 minutes, as root; SEC=600 for ten
	@PYTHONPATH=.:tests:tests/support $(python) -m tests.hosts.run --seconds $(SEC) $(args)

one-answer: venv ## have every view of 2,000 random stores say the same, and what the files say; N=200 for fewer
	@HOME=build PYTHONPATH=.:tests:tests/support $(python) -m tests.one_answer --stores $(N)

together: venv ## two servers, cron and clients on one store, an hour; TOGETHER_SEC=600 for ten minutes
	@PYTHONPATH=.:tests:tests/support $(python) -m tests.together.run --seconds $(TOGETHER_SEC)

bench: venv ## measure against harbor run; writes a table and JSON into build/bench
	@$(python) -m benchmarks $(args)

pictures: venv ## take the pictures of the pages anew, into docs/img
	@HOME=build PYTHONPATH=.:tests:tests/support $(python) -m tests.support.screenshots

examples: venv ## take the examples of the OpenAPI document anew, from real answers
	@HOME=build PYTHONPATH=.:tests:tests/support $(python) -m tests.support.api_examples

docs: venv ## build the documents as a site that needs no network, into build/site
	@$(python) -m parallelhassnes.cli.reference docs >/dev/null
	@NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

lock: ## write requirements.lock anew (args=--upgrade for newer versions)
	@tools/lock.sh $(args)

clean: ## remove what the other commands made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

venv:
	@tools/venv.sh
