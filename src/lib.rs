//! Hand-written WGSL compute kernels on `wgpu` that train, test and serve multi-agent PPO (MAPPO)
//! trading agents on any GPU.

pub mod backtest;
pub mod env;
mod error;
pub mod market;

pub use error::{Error, Result};
