//! Tests of the public interface, in one program so that they share devices and compiled kernels.

use phalanx::gpu;

mod audit;
mod backtests;
mod calendar;
mod candle_files;
mod candles;
mod common;
mod comparing;
mod control;
mod costs;
mod device_env;
mod dialects;
mod discipline;
mod ensembles;
mod evaluation;
mod export;
mod filled_bars;
mod folders;
mod funding;
mod fuzz_corpus;
mod indicators;
mod indicators_properties;
mod indicators_ticks;
mod joined_files;
mod kernel_cache;
mod known_markets;
mod large_files;
mod learning;
mod live;
mod live_program;
mod market;
mod memory;
mod observations;
#[cfg(feature = "parquet")]
mod parquet;
mod plain_device;
mod policy;
#[cfg(target_os = "linux")]
mod process_limit;
mod program;
mod promises;
mod random_timing;
mod resume;
mod resumed_markets;
#[cfg(target_os = "linux")]
mod setup_scripts;
mod shaders;
mod shadows;
mod sweep;
mod terminal;
#[path = "../../src/testing.rs"]
mod testing;
mod walk_forward;
mod watching;
