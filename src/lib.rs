//! Hand-written WGSL compute kernels on `wgpu` that train, test and serve multi-agent PPO (MAPPO)
//! trading agents on any GPU.

pub mod backtest;
pub mod env;
mod error;
pub mod files;
pub mod gpu;
pub mod indicators;
pub mod mappo;
pub mod market;
pub mod model;
pub mod nn;
pub mod policy;
pub mod ppo;
pub mod random;

pub use error::{Error, Result};

/// Every kernel of the library with every variant it is compiled in, for the adapters of a class.
#[must_use]
pub fn kernels(class: gpu::Class) -> Vec<(gpu::Shader, gpu::Variant)> {
    [indicators::kernels, nn::kernels, ppo::kernels, market::kernels, env::kernels]
        .into_iter()
        .flat_map(|family| family(class))
        .collect()
}
