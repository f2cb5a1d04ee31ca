# The one place where commands live: the README, pre-commit and CI call these targets.
# Each target brings what it needs (virtual environment, Docker engine, images) by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ETL_CACHE := $(CURDIR)/.cache
# Where it is set, each ansible-playbook compiles all that it imports anew: half of its start.
unexport PYTHONDONTWRITEBYTECODE
INVENTORY ?= inventories/production
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))

.PHONY: help
help: ## Show what there is to run
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

# --- the servers -------------------------------------------------------------------------------

.PHONY: setup
setup: venv ## Make the virtual environment with Ansible (.venv) and nothing else

.PHONY: secrets
secrets: venv ## Generate passwords, CA and backup identity for INVENTORY=inventories/production
	@python scripts/make_secrets.py $(INVENTORY)

.PHONY: audit
audit: venv ## Measure the servers of INVENTORY with lynis, ssh-audit, systemd-analyze and a port scan
	@rm -f artifacts/audit.txt
	failed=0
	ansible-playbook -i $(INVENTORY) playbooks/audit.yml $(ARGS) || failed=1
	[ ! -e artifacts/audit.txt ] || cat artifacts/audit.txt
	exit $$failed

# --- see it work on this machine ---------------------------------------------------------------

.PHONY: demo
demo: venv docker ## The whole journey on five local machines: build, migrate, prove
	@demo/run.sh journey

.PHONY: demo-rollback
demo-rollback: venv docker ## Go back to the old PC and show that no row is missing
	@demo/run.sh rollback

.PHONY: bench-cutover
bench-cutover: venv docker ## The demo's downtime with longer histories: BENCH_ROWS="100000 1000000"
	@demo/run.sh bench

.PHONY: demo-clean
demo-clean: ## Remove everything the demo made
	@demo/run.sh clean

# --- tests -------------------------------------------------------------------------------------

.PHONY: test
test: venv images postgres ## Everything: lint, pytest, every Molecule scenario but vm
	@scripts/run_tests.sh all

.PHONY: test-fast
test-fast: venv postgres ## Lint and pytest, without Docker
	@scripts/run_tests.sh fast

.PHONY: lint
lint: venv ## yamllint, ansible-lint (profile production), ruff
	@scripts/run_tests.sh lint

.PHONY: molecule
molecule: venv images ## One scenario: make molecule SCENARIO=hardening
	@! grep -qs machine_prepared: molecule/$(SCENARIO)/inventory/hosts.yml || scripts/prepared_images.sh build
	molecule test -s $(SCENARIO)

.PHONY: test-vm
test-vm: venv docker qemu ## site.yml on two virtual machines with kernels of their own, and a reboot (not part of test)
	@molecule test -s vm

.PHONY: bench
bench: venv postgres ## Time ferry against PostgreSQL's own COPY, and pgloader where installed
	@python ferry/bench/bench.py

.PHONY: bench-bot
bench-bot: venv postgres ## Time the reference bot's commands at one year of data
	@python tests/reference_bot/bench.py

# --- housekeeping ------------------------------------------------------------------------------

.PHONY: lock
lock: venv ## Write the hash-locked requirements anew from the *.in files
	@uv pip compile -q --upgrade --generate-hashes --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile -q --generate-hashes --python-version 3.11 ferry/pyproject.toml -c requirements.txt -o ferry/requirements.txt
	uv pip compile -q --generate-hashes --python-version 3.11 --universal reference_bot/requirements.in -c requirements.txt -o reference_bot/requirements.txt

.PHONY: clean
clean: demo-clean ## Remove the virtual environment, caches and test machines too
	@rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis .ansible

.PHONY: venv docker qemu images postgres
venv:
	@scripts/ensure_venv.sh

docker:
	@scripts/ensure_docker.sh

qemu:
	@scripts/ensure_qemu.sh

images: docker
	@demo/base_image/build.sh bookworm
	demo/base_image/build.sh trixie

postgres:
	@scripts/ensure_postgres.sh
