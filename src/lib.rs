//! Hand-written WGSL compute kernels on `wgpu` that train, test and serve multi-agent PPO (MAPPO)
//! trading agents on any GPU.
//!
//! The data goes up once, everything happens on the device, and a few numbers come back. On the application's own device:
//!
//! ```no_run
//! use phalanx::env::{Episodes, Trading, TradingSettings};
//! use phalanx::gpu::Gpu;
//! use phalanx::mappo::{Config, Trainer};
//! use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
//!
//! fn train(device: wgpu::Device, queue: wgpu::Queue) -> phalanx::Result<()> {
//!     let gpu = Gpu::from_device(device, queue)?;
//!     let candles = Candles::load(&["candles/"], GapPolicy::Reject)?;
//!     let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..1500))?;
//!     let bars = data.first_bar()..1500;
//!     let market = Trading::new(&data, &TradingSettings::default(), &Episodes::Random(bars))?;
//!     let mut trainer = Trainer::new(&gpu, &market, &Config::default())?;
//!     trainer.train(|progress| -> phalanx::Result<()> {
//!         println!("{:?}", progress.record);
//!         Ok(())
//!     })?;
//!     Ok(())
//! }
//! ```
//!
//! The public modules, from the bottom up, each with the reason why it is public:
//!
//! * [`gpu`]: opens devices, and compiles and runs kernels. For kernels and environments of one's own.
//! * [`indicators`]: technical indicators as arrays or as the inputs of a policy.
//! * [`market`]: reads candles and turns them into features on the device.
//! * [`model`]: the shape of networks and the layout of their weights in model files. For tools that read or write weights.
//! * [`mod@env`]: the environments of the crate, and the traits for rules of one's own in Rust or WGSL.
//! * [`mappo`]: trains policies, evaluates them and saves snapshots.
//! * [`policy`]: trained policies of any environment: files, decisions on the CPU and on the device, targets on candles.
//! * [`backtest`]: replays decisions on candles and measures the account.
//! * [`research`]: tells whether a result is more than luck: folds on which agents are retrained, statistics of trials, baselines.
//! * [`random`]: the random numbers of the kernels on the CPU. For reproducible simulators and tests of kernels.
//! * [`files`]: writes files atomically, as the crate writes its own. For programs that keep results beside them.
//!
//! `bounded`, `ranges` and `text` are for the programs of this repository, without any guarantee of stability.
//!
//! # Cargo features
//!
//! All but `parquet` are on by default:
//!
//! * `market`: candles, features, the trading environment, trained policies, backtests and research;
//! * `parquet`: candles from Parquet files;
//! * `onnx`: policies as ONNX files, for other programs;
//! * `cpu-env`: environments written in Rust (`env::CpuEnv`), stepped on all cores;
//! * `vulkan`, `metal`, `dx12`: the backends of [`wgpu`], which is re-exported, as [`ndarray`] and `jiff` are.
//!
//! `default-features = false, features = ["vulkan"]` builds the kernels, the trainer and the device environments alone.
//!
//! The kernels of networks and PPO run without bounds checks and are private to the crate. [`mappo`], [`model`] and
//! [`mod@env`] re-export their settings. The cargo feature `bench` exposes the kernels to the benchmarks of this repository,
//! without any guarantee of stability or safety. The cargo feature `fault-injection` lets tests make changes to the file system fail.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "market")]
pub mod backtest;
#[cfg(feature = "bench")]
pub mod bench;
#[doc(hidden)]
pub mod bounded;
pub mod env;
mod error;
pub mod files;
pub mod gpu;
pub mod indicators;
#[cfg(test)]
mod layout_testing;
pub mod mappo;
#[cfg(feature = "market")]
pub mod market;
pub mod model;
pub(crate) mod nn;
pub mod policy;
pub(crate) mod ppo;
pub mod random;
#[doc(hidden)]
pub mod ranges;
#[cfg(feature = "market")]
pub mod research;
mod shaders;
#[cfg(test)]
mod testing;
#[cfg_attr(not(feature = "market"), allow(dead_code, reason = "most of it is for candle files"))]
#[doc(hidden)]
pub mod text;

pub use error::{Error, Result};
/// The version of jiff whose timestamps candles have.
#[cfg(feature = "market")]
pub use jiff;
/// The version of ndarray whose arrays candles and indicators use.
pub use ndarray;
pub use shaders::shader_with_library;
/// The version of wgpu that a device of the caller must come from.
pub use wgpu;

/// Every kernel of the library that is one file, with every variant it is compiled in, for the adapters of a class. Those of
/// indicator panels and of environments that are WGSL functions are put together on demand: [`indicators::sources`], [`env::sources`].
#[must_use]
pub fn kernels(class: gpu::Class) -> Vec<(gpu::Shader, gpu::Variant)> {
    let families = [
        indicators::kernels,
        nn::kernels,
        ppo::kernels,
        #[cfg(feature = "market")]
        market::kernels,
        #[cfg(feature = "market")]
        research::kernels,
    ];
    families.into_iter().flat_map(|family| family(class)).collect()
}
