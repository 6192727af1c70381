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
//! From the bottom up: [`gpu`] opens devices and records work; [`indicators`] computes technical indicators; [`market`] turns
//! candles into features; [`model`] reads and writes networks; [`mod@env`] holds the environments; [`mappo`] trains policies,
//! [`policy`] runs them, and [`backtest`] measures the result.
//!
//! The kernels of networks and PPO run without bounds checks and are private to the crate. [`mappo`] re-exports their
//! settings. The cargo feature `bench` exposes the kernels to the benchmarks of this repository, without any guarantee of
//! stability or safety.

#![warn(missing_docs)]

pub mod backtest;
#[cfg(feature = "bench")]
pub mod bench;
pub mod env;
mod error;
pub mod files;
pub mod gpu;
pub mod indicators;
#[cfg(test)]
mod layout_testing;
pub mod mappo;
pub mod market;
pub mod model;
pub(crate) mod nn;
pub mod policy;
pub(crate) mod ppo;
pub mod random;
mod shaders;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
/// The version of ndarray that candles and indicators come in.
pub use ndarray;
pub use shaders::shader_with_library;
/// The version of wgpu that devices of the caller's have to come from.
pub use wgpu;

/// Every kernel of the library but those of the indicators, with every variant it is compiled in, for the adapters of a
/// class. Those of the indicators are put together on demand: [`indicators::sources`].
#[must_use]
pub fn kernels(class: gpu::Class) -> Vec<(gpu::Shader, gpu::Variant)> {
    [nn::kernels, ppo::kernels, market::kernels, env::kernels]
        .into_iter()
        .flat_map(|family| family(class))
        .collect()
}
