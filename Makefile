# The project's only task runner. `make` lists the targets.

# The pinned versions of external programs.
include deploy/local/versions.env

# The Cargo profile of `build`, `demo` and `up`. `dev` shares its build with `test`.
PROFILE ?= dev
# Flags for every cargo command, for example --locked.
CARGO_FLAGS ?=
TEST_FLAGS ?= --workspace

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES := $(TARGET_DIR)/$(if $(filter dev test,$(PROFILE)),debug,$(if $(filter bench,$(PROFILE)),release,$(PROFILE)))
# In optimised builds, for hookline_build_info. Others would be built again after each commit.
REVISION := $(if $(filter dev test,$(PROFILE)),,HOOKLINE_REVISION=$(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown))
NATS_CLI_BINARY := $(CURDIR)/.tools/bin/nats
COLLECTOR_BINARY := $(CURDIR)/.tools/bin/collector
GO_KONG_BINARY := $(CURDIR)/.tools/bin/go-kong
PYTHON_CLIENTS := $(CURDIR)/.tools/python
PREVIOUS_BINARIES := $(CURDIR)/.tools/previous

.DEFAULT_GOAL := help
.PHONY: help servers build demo up observe down check test chaos bench bench-full compat dist docs fmt clean need-rust need-python need-servers need-go

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Variables:"
	@echo "  PROFILE=release                build, demo, up: optimised binaries, after a long build (default: dev)"
	@echo "  TEST_FLAGS='-p e2e webhook'    test: flags of cargo test (default: --workspace)"
	@echo "  FAULT=kill                     chaos: a single fault (default: all)"

servers: need-python ## Fetch the servers for demo, up, observe and test into .servers/ (no root, no Docker)
	@deploy/local/fetch-servers

build: need-rust ## Build both services
	$(REVISION) cargo build --workspace --profile $(PROFILE) $(CARGO_FLAGS)

demo: need-servers build ## Run the four examples on a temporary cluster
	@deploy/local/hookline-local demo --binaries $(BINARIES)

up: need-servers build ## Start a local cluster in the background
	@deploy/local/hookline-local up --binaries $(BINARIES)

observe: need-python ## Start Prometheus beside the cluster of `up`
	@deploy/local/hookline-local observe

down: need-python ## Stop the cluster of `up`
	@deploy/local/hookline-local down

check: need-rust need-python ## Check formatting, lints, docs, alerts, dashboards, dependency licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings
	@# --all-targets leaves `compat` out, because it is not tested by default.
	cargo clippy --workspace --test compat $(CARGO_FLAGS) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps $(CARGO_FLAGS)
	@deploy/local/fetch-servers cargo-deny
	.servers/bin/cargo-deny -L error check --hide-inclusion-graph --show-stats licenses bans sources
	@.ci/advisories .servers/bin/cargo-deny
	@deploy/local/fetch-servers promtool
	@.ci/prometheus-rules .servers/bin/promtool
	@.ci/manifests --promtool .servers/bin/promtool
	@deploy/local/fetch-servers node
	@.ci/dashboards .servers/bin/promtool
	@.ci/python-syntax deploy
	@.ci/python-syntax .ci
	@.ci/docs $(TARGET_DIR)/docs

test: need-rust servers ## Run unit tests, then end-to-end tests on real servers
	cargo build --workspace $(CARGO_FLAGS)
	@.ci/packages $(TARGET_DIR)/debug
	cargo test $(TEST_FLAGS) $(CARGO_FLAGS)

chaos: need-rust servers ## Inject faults under load and reconcile every delivery
	cargo build --release --workspace $(CARGO_FLAGS)
	HOOKLINE_BIN_DIR=$(abspath $(TARGET_DIR))/release $(TARGET_DIR)/release/hookline-loadtest chaos --out $(TARGET_DIR)/chaos $(FAULT)

bench: need-rust servers ## Measure speed as ratios to the bare pipe, in under fifteen minutes
bench-full: need-rust servers ## Measure with longer runs, 100,000 hooks and a soak
bench bench-full:
	cargo build --release --workspace $(CARGO_FLAGS)
	HOOKLINE_BIN_DIR=$(abspath $(TARGET_DIR))/release $(TARGET_DIR)/release/hookline-loadtest bench --out $(TARGET_DIR)/bench $(if $(filter bench-full,$@),--full)

compat: need-go need-rust servers ## Test Hookline with third-party clients (needs Go)
	@.ci/nats-cli $(NATS_CLI) $(dir $(NATS_CLI_BINARY))
	@.ci/go-program collector $(dir $(COLLECTOR_BINARY))
	@.ci/go-program go-kong $(dir $(GO_KONG_BINARY))
	@.ci/python-clients $(PYTHON_CLIENTS)
	@.ci/previous-binaries $(PREVIOUS_BINARIES)
	cargo build --workspace $(CARGO_FLAGS)
	@.ci/manifests --go --binaries $(TARGET_DIR)/debug
	HOOKLINE_COMPAT=1 NATS_CLI=$(NATS_CLI_BINARY) COLLECTOR=$(COLLECTOR_BINARY) GO_KONG=$(GO_KONG_BINARY) PYTHON_CLIENTS=$(PYTHON_CLIENTS) PREVIOUS_BINARIES=$(PREVIOUS_BINARIES) \
		cargo test --workspace --test compat $(CARGO_FLAGS)

dist: need-rust need-python ## Make a release in target/dist: tarball, packages, chart, bill of materials, checksums
	@deploy/dist/make-dist --out $(TARGET_DIR)/dist

docs: need-python ## Build docs/ as a site in target/docs, and check its links
	@.ci/docs $(TARGET_DIR)/docs

fmt: need-rust ## Format the code
	cargo fmt --all

clean: down ## Stop the cluster and remove all build output, servers and data
	rm -rf .run .servers .tools
	cargo clean

need-rust:
	@command -v cargo >/dev/null || { echo "cargo is not on PATH; install Rust: https://rustup.rs" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "the C++ compiler $${CXX:-c++} is not on PATH; the Lua sandbox needs one. Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; or set CXX" >&2; exit 1; }

need-go:
	@command -v go >/dev/null || { echo "go is not on PATH; make compat builds the NATS CLI with it. Install Go: https://go.dev/dl" >&2; exit 1; }

need-servers: need-python
	@deploy/local/fetch-servers nats-server redis-server

need-python:
	@command -v python3 >/dev/null || { echo "python3 is not on PATH; install Python 3.8 or newer with pip. Debian, Ubuntu: apt-get install python3-pip; Fedora: dnf install python3-pip" >&2; exit 1; }
