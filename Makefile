# okki-sync: needs Rust, Python 3 and make; everything else is installed into the checkout.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
EVENT ?= events/scheduled.json
PORT ?= 9100

.PHONY: help demo test build lint unit lambda infra deny watch invoke clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: ## the main job against the sandbox: sync, changes, plan, sync, verify
	@cargo run -q --bin okki-sync -- demo

test: lint unit lambda infra ## everything that CI checks; installs what it needs into the checkout
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed: 'make deny' installs it and checks licences, bans and sources"; fi

build: ## both programs, dev profile
	cargo build --all-targets

lint: ## formatting, and clippy with warnings as errors
	cargo fmt --check
	cargo clippy -q --all-targets -- -D warnings

unit: ## unit and integration tests
	cargo test

lambda: build $(VENV)/.installed ## the real Lambda program under cargo-lambda, with Secrets Manager and S3 over the wire
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest -q tests/lambda

infra: build $(VENV)/.installed $(VENV)/emulator/.installed ## the infrastructure: state machine and schedule executed in an emulator with the real program
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest -q tests/infra

deny: ## licences, bans and sources of all dependencies
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

watch: $(VENV)/.installed ## the Lambda function on PORT, with the environment of dev.env (okki-sync sandbox --env-file dev.env)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda watch --ignore-changes --wait --env-file dev.env -A 127.0.0.1 -P $(PORT)

invoke: $(VENV)/.installed ## send EVENT to `make watch`
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda invoke -A 127.0.0.1 -P $(PORT) okki-sync-lambda --data-file $(EVENT)

clean: ## everything that was built or installed here
	rm -rf target $(VENV)

# The stamp is last, so that a broken installation is done again.
$(VENV)/.installed: tests/requirements.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install -q -r tests/requirements.txt
	touch $@

$(VENV)/emulator/.installed: tests/infra/requirements.txt $(VENV)/.installed
	python3 -m venv $(VENV)/emulator
	$(VENV)/emulator/bin/python -m pip install -q -r tests/infra/requirements.txt
	touch $@
