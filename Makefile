# The project's only task runner. `make` lists the targets.

# Versions of outside programs: pinned there, and nowhere else.
include deploy/local/versions.env

# The Cargo profile of what `build`, `demo` and `up` run. `dev` shares its build with `test`;
# PROFILE=release is faster at run time and takes a long build of its own.
PROFILE ?= dev
# For every cargo command, for example CARGO_FLAGS=--locked.
CARGO_FLAGS ?=
# What `test` passes on, for example TEST_FLAGS='-p e2e webhook'.
TEST_FLAGS ?= --workspace

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES := $(TARGET_DIR)/$(if $(filter dev test,$(PROFILE)),debug,$(if $(filter bench,$(PROFILE)),release,$(PROFILE)))
NATS_CLI_BINARY := $(CURDIR)/.tools/bin/nats

.DEFAULT_GOAL := help
.PHONY: help servers build demo up down check test chaos bench bench-full compat fmt clean need-rust need-python need-servers need-go

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PROFILE=release builds optimised binaries for build, demo and up (default: dev)"

servers: need-python ## Fetch NATS and Redis servers into .servers/ (no root, no Docker)
	@deploy/local/fetch-servers

build: need-rust ## Build both services
	cargo build --workspace --profile $(PROFILE) $(CARGO_FLAGS)

demo: need-servers build ## Run the four examples on a cluster of their own, then stop it
	@deploy/local/hookline-local demo --binaries $(BINARIES)

up: need-servers build ## Start a cluster and leave it running
	@deploy/local/hookline-local up --binaries $(BINARIES)

down: need-python ## Stop the cluster that `up` started
	@deploy/local/hookline-local down

check: need-rust need-python ## Formatting, lints, docs, dependency licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings
	@# Not among all targets, since `cargo test` leaves it out.
	cargo clippy --workspace --test compat $(CARGO_FLAGS) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps $(CARGO_FLAGS)
	@deploy/local/fetch-servers cargo-deny
	.servers/bin/cargo-deny -L error check --hide-inclusion-graph --show-stats licenses bans sources
	@.ci/advisories .servers/bin/cargo-deny
	@.ci/python-syntax deploy/local

test: need-rust servers ## Unit tests, then end-to-end tests on real servers
	cargo build --workspace $(CARGO_FLAGS)
	cargo test $(TEST_FLAGS) $(CARGO_FLAGS)

chaos: need-rust servers ## Faults on real processes under load, and a ledger (FAULT=name for one)
	cargo build --release --workspace $(CARGO_FLAGS)
	HOOKLINE_BIN_DIR=$(abspath $(TARGET_DIR))/release $(TARGET_DIR)/release/hookline-loadtest chaos --out $(TARGET_DIR)/chaos $(FAULT)

bench: need-rust servers ## How fast it is, as ratios to the bare pipe, in under fifteen minutes
bench-full: need-rust servers ## The same with longer runs, 100,000 hooks and a soak
bench bench-full:
	cargo build --release --workspace $(CARGO_FLAGS)
	HOOKLINE_BIN_DIR=$(abspath $(TARGET_DIR))/release $(TARGET_DIR)/release/hookline-loadtest bench --out $(TARGET_DIR)/bench $(if $(filter bench-full,$@),--full)

compat: need-go need-rust servers ## Run the product against other people's clients (needs Go)
	@.ci/nats-cli $(NATS_CLI) $(dir $(NATS_CLI_BINARY))
	cargo build --workspace $(CARGO_FLAGS)
	HOOKLINE_COMPAT=1 NATS_CLI=$(NATS_CLI_BINARY) cargo test --workspace --test compat $(CARGO_FLAGS)

fmt: need-rust ## Format the code
	cargo fmt --all

clean: down ## Remove everything that the other targets made
	rm -rf .run .servers .tools
	cargo clean

need-rust:
	@command -v cargo >/dev/null || { echo "cargo is not on PATH: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "no C++ compiler ($${CXX:-c++}), which the Lua sandbox is built with; Debian, Ubuntu: apt-get install g++" >&2; exit 1; }

need-go:
	@command -v go >/dev/null || { echo "make compat builds the NATS CLI and needs Go for it: install Go from https://go.dev/dl" >&2; exit 1; }

need-servers: need-python
	@deploy/local/fetch-servers nats-server redis-server

need-python:
	@command -v python3 >/dev/null || { echo "python3 is not on PATH: install Python 3.8 or newer" >&2; exit 1; }
