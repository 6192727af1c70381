# The few commands of this repository; `make help` lists them.

# Overridable on the command line: make demo DATA=my.csv RUN=runs/mine
CARGO = cargo
DATA  = examples/data/us4_daily.csv.gz
RUN   = runs/demo

# Without a desktop session Mesa's device-selection layer only complains that it found no Wayland.
export NODEVICE_SELECT = 1

# Each recipe builds first and asks for an adapter afterwards, so that code that does not compile is never
# taken for a missing driver.
TRAINER     := $(CARGO) run --quiet --locked --release --example trainer --
TRAINER_DEV = "$${CARGO_TARGET_DIR:-$${CARGO_BUILD_TARGET_DIR:-target}}/debug/examples/trainer"

GROUPS = networks indicators training updates others resume program other-training other-updates trainer documentation
.PHONY: help demo pictures test test-nightly test-parquet onnx fuzz portability bench peers notebook wheel lint cargo $(addprefix test-,$(GROUPS))

help:
	@echo "make demo    train on the demo candles, audit and backtest the result, retrain over folds, and write reports"
	@echo "make pictures  draw the dashboard, the report and the live page of the run in RUN for the documentation"
	@echo "make test    run all tests (on the GPU, or on the CPU through Mesa's llvmpipe)"
	@echo "make test-nightly  the same with bounds checks in the networks too, more interruptions and faults, and large files"
	@echo "make test-parquet  test the feature \`parquet\`, which the others leave out"
	@echo "make onnx    open exports of every kind of policy in ONNX Runtime (needs Python and PyPI)"
	@echo "make fuzz    run the fuzzers, an hour each (needs a nightly Rust)"
	@echo "make portability  compile every kernel with the compilers of browsers and of DirectX"
	@echo "make bench   run the kernel benchmarks"
	@echo "make peers   measure phalanx beside PyTorch, JAX, ONNX Runtime, TA-Lib and numba (needs Python and PyPI)"
	@echo "make notebook  execute the Colab notebook without a browser, on this machine's adapter (needs Python and PyPI)"
	@echo "make wheel   build the wheel of the trainer program, install it in a clean virtual environment and use it (needs Python and PyPI)"
	@echo "make lint    check formatting and run clippy, warnings being errors"
	@echo "make help    show this list"

demo: cargo
	$(CARGO) build --locked --release --example trainer
	scripts/ensure-vulkan $(TRAINER) doctor
	$(TRAINER) train --data $(DATA) --out $(RUN) --config examples/trainer/demo.toml --force
	$(TRAINER) audit --run $(RUN) --data $(DATA) --iterations 25
	$(TRAINER) backtest --run $(RUN) --data $(DATA)
	$(TRAINER) walk-forward --data $(DATA) --out $(RUN)-walk --config examples/trainer/demo.toml \
		--folds 3 --seeds 1 --iterations 50 --force
	$(TRAINER) validate --run $(RUN) --data $(DATA)
	@echo "The reports are $(RUN)/report.html and, retrained over three folds, $(RUN)-walk/report.html; open them in a browser."
	@echo "The training: trainer watch --run $(RUN)"
	@echo "Decisions on live bars: trainer live --run $(RUN) --data $(DATA) (docs/live.md)"

# Of a finished run; `make demo` trains one.
pictures: cargo
	$(CARGO) build --locked --workspace --examples
	PHALANX_RUN=$(abspath $(RUN)) $(CARGO) test --quiet --locked --workspace --test suite -- picture_of_the_dashboard
	scripts/pictures $(RUN) $(DATA)

# The command line tests run the example `trainer`, which has unit tests too. Every command names the workspace: a package
# alone would have its dependencies built again with fewer features.
TESTED = --workspace --lib --test suite --example trainer

# Software rasterisers compile most of the time, each device one kernel after the other, and what a process has compiled lies
# on the disk for the next. So the tests run in groups that share kernels, as many groups at a time as there are cores, and
# one test of a group at a time: side by side, two tests would compile the same kernels twice.

test: cargo
	$(CARGO) build --locked --workspace --examples
	$(CARGO) test --locked --no-run $(TESTED)
	scripts/ensure-vulkan $(TRAINER_DEV) doctor
	@skipped=$$(mktemp) && trap 'rm -f "$$skipped"' EXIT && export PHALANX_SKIPPED="$$skipped" && \
	$(MAKE) --no-print-directory --keep-going $(TOGETHER) --jobs=$$(getconf _NPROCESSORS_ONLN) $(addprefix test-,$(GROUPS)) && \
	sort "$$skipped" && echo "Skipped checks: $$(wc -l <"$$skipped")."

# The output of a group in one piece, where make can: Apple's cannot.
TOGETHER = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
UNIT  = $(CARGO) test --quiet --locked --workspace --lib -- --test-threads=1
SUITE = $(CARGO) test --quiet --locked --workspace --test suite -- --test-threads=1
# The kernels for the class of adapters that this one does not belong to, GPUs or software rasterisers.
OTHER = PHALANX_OTHER_CLASS=1

TRAINING = discipline:: known_markets:: learning:: evaluation:: observations:: memory::

test-networks:
	$(UNIT) nn::
test-updates:
	$(UNIT) ppo:: mappo::
test-others:
	$(UNIT) $(addprefix --skip ,nn:: ppo:: mappo::)
test-indicators:
	$(SUITE) indicators
test-training:
	$(SUITE) $(TRAINING)
test-resume:
	$(SUITE) resume::
test-program:
	$(SUITE) $(addprefix --skip ,indicators resume:: $(TRAINING))
test-other-updates:
	$(OTHER) $(UNIT) ppo:: indicators:: market:: mappo::
test-other-training:
	$(OTHER) $(SUITE) learning:: discipline:: market:: resume::a_resumed_run_with_a_global_state
test-trainer:
	$(CARGO) test --quiet --locked --workspace --example trainer
test-documentation:
	$(CARGO) test --quiet --locked --workspace --doc

# Bounds checks in all kernels that the tests compile in their own process, more kills and faults, large candle files, live decisions
# on every bar of the candles, and twenty markets of every kind that the verdict has to be right on.
test-nightly:
	PHALANX_CHECKED=1 PHALANX_KILLS=20 PHALANX_LARGE=1 PHALANX_FAULTS=1 PHALANX_EVERY_BAR=1 \
	PHALANX_KNOWN_MARKETS=20 $(MAKE) test
	$(MAKE) test-parquet

# Not part of `test`: the feature takes long to build.
test-parquet: cargo
	$(CARGO) test --locked --workspace --lib --features phalanx-tests/parquet --no-run
	$(CARGO) test --locked --workspace --test suite --features phalanx-tests/parquet --no-run
	scripts/ensure-vulkan true
	$(CARGO) test --locked --workspace --lib --features phalanx-tests/parquet -- market::load
	$(CARGO) test --locked --workspace --test suite --features phalanx-tests/parquet -- parquet::

# Not part of `test`, which checks the exports in Rust: it installs ONNX Runtime from PyPI into target/onnx.
onnx: cargo
	$(CARGO) test --locked --workspace --lib --no-run
	scripts/ensure-vulkan true
	rm -rf target/onnx/exports && mkdir -p target/onnx/exports
	test -x target/onnx/python/bin/python || python3 -m venv target/onnx/python
	target/onnx/python/bin/pip install --quiet --requirement tests/fixtures/onnx_exports.txt
	PHALANX_EXPORTS="$(CURDIR)/target/onnx/exports" $(UNIT) policy::export
	target/onnx/python/bin/python tests/fixtures/onnx_exports.py target/onnx/exports

# For a night, beside `test-nightly`: five hours.
fuzz: cargo
	scripts/ensure-vulkan true
	scripts/fuzz

portability: cargo
	scripts/portability/run $(CARGO)

bench: cargo
	$(CARGO) build --locked --release --example trainer
	$(CARGO) bench --locked --package phalanx-benches --features bench --no-run
	scripts/ensure-vulkan $(TRAINER) doctor
	$(CARGO) bench --locked --package phalanx-benches --features bench

# The variable PEERS takes arguments of the script: make peers PEERS="--rounds 5 --only training".
peers: cargo
	$(CARGO) build --locked --release --example trainer
	$(CARGO) bench --locked --package phalanx-benches --bench training --bench indicators --bench policy --no-run
	scripts/ensure-vulkan $(TRAINER) doctor
	benches/peers/run $(PEERS)

notebook: cargo
	scripts/notebook

wheel: cargo
	scripts/wheel

lint: cargo
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --features bench -- -D warnings

cargo:
	@command -v $(CARGO) >/dev/null || { \
		echo "$(CARGO) not found: install Rust with rustup (https://rustup.rs), then open a new shell and run make again" >&2; \
		exit 1; }
