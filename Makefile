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
TRAINER_DEV = "$${CARGO_TARGET_DIR:-target}/debug/examples/trainer"

.PHONY: help demo test test-nightly portability bench lint cargo

help:
	@echo "make demo    train on the demo candles, backtest the result and write its report"
	@echo "make test    run all tests (on the GPU, or on the CPU through Mesa's llvmpipe)"
	@echo "make test-nightly  the same with bounds checks in every kernel and more interruptions"
	@echo "make portability  compile every kernel with the compilers of browsers and of DirectX"
	@echo "make bench   run the kernel benchmarks"
	@echo "make lint    check formatting and run clippy, warnings being errors"
	@echo "make help    show this list"

demo: cargo
	$(CARGO) build --locked --release --example trainer
	scripts/ensure-vulkan $(TRAINER) doctor
	$(TRAINER) train --data $(DATA) --out $(RUN) --config examples/trainer/demo.toml --force
	$(TRAINER) backtest --run $(RUN) --data $(DATA)
	@echo "The report is $(RUN)/report.html; open it in a browser."

# The command line tests run the example `trainer`, which has unit tests too. Every command names the workspace: a package
# alone would have its dependencies built again with fewer features.
TESTED = --workspace --lib --test suite --example trainer

# The second and third run: the kernels for the other class of adapters, GPUs or software rasterisers.
test: cargo
	$(CARGO) build --locked --workspace --examples
	$(CARGO) test --locked --no-run $(TESTED)
	scripts/ensure-vulkan $(TRAINER_DEV) doctor
	@skipped=$$(mktemp) && trap 'rm -f "$$skipped"' EXIT && export PHALANX_SKIPPED="$$skipped" && set -x && \
	$(CARGO) test --locked $(TESTED) && \
	PHALANX_OTHER_CLASS=1 $(CARGO) test --locked --workspace --lib -- ppo:: indicators:: market:: mappo:: && \
	PHALANX_OTHER_CLASS=1 $(CARGO) test --locked --workspace --test suite -- learning:: discipline:: market:: \
		resume::a_run_with_critics && \
	$(CARGO) test --locked --workspace --doc && \
	{ set +x; } 2>/dev/null && sort "$$skipped" && echo "Skipped checks: $$(wc -l <"$$skipped")."

# Bounds checks in every kernel, and more kills.
test-nightly:
	PHALANX_CHECKED=1 PHALANX_KILLS=20 $(MAKE) test

portability: cargo
	scripts/portability/run $(CARGO)

bench: cargo
	$(CARGO) build --locked --release --example trainer
	$(CARGO) bench --locked --package phalanx-benches --features bench --no-run
	scripts/ensure-vulkan $(TRAINER) doctor
	$(CARGO) bench --locked --package phalanx-benches --features bench

lint: cargo
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --features bench -- -D warnings

cargo:
	@command -v $(CARGO) >/dev/null || { \
		echo "$(CARGO) not found: install Rust with rustup (https://rustup.rs), then open a new shell and run make again" >&2; \
		exit 1; }
