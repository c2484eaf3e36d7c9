# Needs Python 3.11 or newer, a Rust toolchain and make; `make help` lists the targets.
# Choose another interpreter with `make PYTHON=python3.12 …` (the environment is made once: `make clean` first).

PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --build-constraints constraints.txt
OLDEST := .venv-oldest
POLARS := .venv-polars
PEERS := .venv-peers
QUESTIONS := machine store_append durable blocking open_run query gather scan epoch recording_overhead emitting transformer_step \
	probing capturing norms hsic_sums cka nearest sparse_decode twonn neural_collapse ksg saving small_saves training_with_saves \
	loading slicing planes checkpoint_bytes sweep_cached cka_grid cka_matrix gram_cpu gram_sums gram_predicted \
	attention attention_predicted sparse_step sparse_encode sparse_predicted codebooks codes
AGES := oldest pinned newest
WIDE_FRAME := tests/runs/test_scan_contract*.py tests/runs/test_zone_maps.py tests/runs/test_attached.py \
	tests/runs/test_taking_cells.py
POLARS_TESTS := blake3 cbor2 cloudpickle google-crc32c hypothesis numpy pytest pytest-timeout
# All but `bench`: what peers need must not decide what Lamina is tested with.
EXTRAS := report interchange ray demo loops dev docs
ENV_STAMP := $(VENV)/.environment
CORE_STAMP := $(VENV)/.core
RUST_SOURCES := $(shell find rust -type f \( -name '*.rs' -o -name Cargo.toml \)) Cargo.toml Cargo.lock

export PYO3_PYTHON := $(abspath $(BIN)/python)
export UV_CONSTRAINT := $(abspath constraints.txt)
export VIRTUAL_ENV := $(abspath $(VENV))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test test-python test-rust test-slow test-power-cut test-aot test-gpu test-oldest test-polars lint pyright clippy \
	format bench peers docs pages examples wheels clean help

demo: $(CORE_STAMP)  ## record small networks and a pretrained one, learn its features, write a report, ask three questions
	$(BIN)/lamina demo

test: lint test-rust test-python docs  ## lint, cargo test, pytest, and the examples of the docs

test-rust: $(ENV_STAMP)
	cargo test --workspace --locked

test-python: $(CORE_STAMP)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

test-slow: $(CORE_STAMP)  ## the tests that are too long for every change
	$(BIN)/python -m pytest -m slow
	cargo test -p lamina-store --locked --release --test sim -- --ignored

test-power-cut: $(CORE_STAMP)  ## cut the power of ext4 and XFS images a hundred times each (root, loop devices)
	$(BIN)/python -m pytest -m power_cut tests/power_cut

test-aot: $(ENV_STAMP)  ## compile every Triton kernel for GPUs that are not here
	$(BIN)/python -m pytest -m "aot or not aot" tests/kernels/test_aot.py

test-gpu: $(CORE_STAMP)  ## the tests that need a GPU
	@$(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || { \
		echo "test-gpu: torch finds no GPU on this machine" >&2; exit 1; }
	$(BIN)/python -m pytest tests/gpu

test-oldest: $(OLDEST)/.environment  ## the kernels under the oldest torch and Triton that must work
	PYTHONPATH=triton_kernels $(OLDEST)/bin/python -m pytest tests/kernels

test-polars: $(CORE_STAMP) $(AGES:%=$(POLARS)-%/.environment)  ## the wide frame under the oldest, the pinned and the newest Polars
	for age in oldest pinned; do PYTHONPATH=pkg $(POLARS)-$$age/bin/python -m pytest $(WIDE_FRAME) || exit 1; done
	PYTHONPATH=pkg $(POLARS)-newest/bin/python -m pytest $(WIDE_FRAME) || \
		echo "test-polars: FAILED under the newest Polars, pre-releases included; that is allowed" >&2

lint: $(CORE_STAMP)  ## ruff, pyright, rustfmt, clippy; warnings are errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cargo fmt --all --check
	@# Pyright keeps one processor busy.
	$(MAKE) --jobs 2 --output-sync pyright clippy

pyright: $(CORE_STAMP)
	$(BIN)/pyright --warnings

clippy: $(CORE_STAMP)
	cargo clippy --workspace --all-targets --locked -- -D warnings

format: $(ENV_STAMP)  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all

bench: $(CORE_STAMP) peers  ## measure against peers and the machine's limits, into bench/results/
	for question in $(QUESTIONS); do $(BIN)/python -m bench.$$question || exit 1; done

peers: $(PEERS)/.environment  ## the environment of what bench/ compares Lamina with

docs: $(CORE_STAMP)  ## build the pages into site/ and run their examples
	$(MAKE) --jobs 2 --output-sync pages examples

pages: $(CORE_STAMP)
	$(BIN)/mkdocs build --strict --quiet

examples: $(CORE_STAMP)
	$(BIN)/python -m pytest -p tests.examples --markdown-docs --markdown-docs-syntax=superfences --doctest-modules \
		docs README.md triton_kernels/README.md pkg triton_kernels/lamina_kernels

wheels: $(ENV_STAMP)  ## build both wheels into dist/
	rm -rf dist
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --build-constraints constraints.txt --out-dir dist triton_kernels
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --build-constraints constraints.txt --out-dir dist .
	@ls dist

clean:  ## remove everything that was built, the environments too
	rm -rf $(VENV) $(OLDEST) $(POLARS)-* $(PEERS) target dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f pkg/lamina/_core*.so

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# An empty environment with uv in it.
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Lamina needs Python 3.11 or newer; '$(PYTHON)' says: $$($(PYTHON) --version 2>&1 | head -n 1)." \
			"Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "Lamina needs a Rust toolchain: cargo is not on the PATH" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu the package python3-venv is missing" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Everything but the compiled module; Python sources are live.
$(ENV_STAMP): constraints.txt pyproject.toml triton_kernels/pyproject.toml | $(BIN)/uv
	@echo "installing the dependencies (with torch's CUDA libraries about 5 GB) into $(VENV)"
	$(INSTALL) --requirements pyproject.toml $(EXTRAS:%=--extra %) --editable ./triton_kernels
	@touch $@

# The compiled module, and lamina itself, editable.
$(CORE_STAMP): $(ENV_STAMP) $(RUST_SOURCES)
	$(BIN)/maturin develop --release --locked --uv
	@touch $@

$(OLDEST)/.environment: triton_kernels/pyproject.toml | $(BIN)/uv
	$(PYTHON) -m venv $(OLDEST)
	@# The interpreter of Triton 3.6 fails under NumPy 2.4, which no longer makes a number of an array of one.
	env -u UV_CONSTRAINT $(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python \
		'torch==2.11.*' 'triton==3.6.*' 'numpy>=2,<2.4' pytest pytest-timeout hypothesis scipy scikit-learn
	@touch $@

# Polars at its lower bound, as pinned, and at its newest; without torch, which the wide frame does not need.
$(POLARS)-%/.environment: constraints.txt pyproject.toml | $(BIN)/uv
	$(PYTHON) -m venv --clear $(@D)
	case $* in \
		(oldest) sed -n 's/^ *"polars>=\(.*\)",$$/polars==\1/p' pyproject.toml;; \
		(pinned) grep '^polars==' constraints.txt;; \
		(newest) echo polars;; esac > $(@D)/polars.txt
	env -u UV_CONSTRAINT $(BIN)/uv pip install --quiet --python $(@D)/bin/python --requirements $(@D)/polars.txt \
		$(if $(filter newest,$*),--prerelease allow) $(POLARS_TESTS)
	@touch $@

# The extra `bench` alone, read from pyproject.toml, and numpy for the worker that calls the peers.
$(PEERS)/.environment: constraints.txt pyproject.toml | $(BIN)/uv
	$(PYTHON) -m venv --clear $(PEERS)
	$(PYTHON) -c 'import tomllib; file = open("pyproject.toml", "rb"); \
		print(*tomllib.load(file)["project"]["optional-dependencies"]["bench"], sep="\n")' | \
		$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python numpy --requirements -
	@touch $@
