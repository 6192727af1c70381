//! Hand-written WGSL compute kernels on `wgpu` that train, test and serve multi-agent PPO (MAPPO)
//! trading agents on any GPU.

pub mod backtest;
pub mod env;
mod error;
pub mod files;
pub mod gpu;
pub mod mappo;
pub mod market;
pub mod model;
pub mod nn;
pub mod ppo;
pub mod random;

pub use error::{Error, Result};
