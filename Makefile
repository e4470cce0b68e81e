# Everything a person does with a checkout. Works from any directory (`make -C DIR`, `make -f`).
# What needs more than a line is a script of the same name in scripts/.

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
.DEFAULT_GOAL := help
.PHONY: help run cluster test lint bench fuzz gateway
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z]*\): ## /  \1 - /p' '$(ROOT)Makefile'
	@echo 'The first build compiles every dependency and takes some minutes.'

run: ## start a node with sample data, kept in .weir-dev (RELEASE=1 builds optimised)
	@'$(ROOT)scripts/run'

cluster: ## start three nodes on a throw-away Postgres (NODES=5 five; ARGS='--kill-every 5s --duration 60s' faults)
	@'$(ROOT)scripts/cluster' $(ARGS)

test: ## set up what is missing, build everything, run every test
	@'$(ROOT)scripts/test'

lint: ## check format, lints, licences and banned crates
	@'$(ROOT)scripts/lint'

bench: ## measure, with ratios against a bare server and client
	@'$(ROOT)scripts/setup' rust
	@cd '$(ROOT)' && cargo bench --quiet --package weir-core
	@if [ -x '$(ROOT)scripts/bench' ]; then '$(ROOT)scripts/bench'; \
	else echo 'bench: NOT RUN: scripts/bench does not exist' >&2; fi

gateway: ## build Caddy with the Weir module, at gateway/bin/caddy
	@'$(ROOT)scripts/gateway' build

fuzz: ## feed parsers with hostile bytes (FUZZ_SECONDS a target, default 60)
	@'$(ROOT)scripts/fuzz'
