//! Hand-written WGSL compute kernels on `wgpu` that train, test and serve multi-agent PPO (MAPPO)
//! trading agents on any GPU.

mod error;
pub mod gpu;
pub mod indicators;
pub mod market;
pub mod nn;

pub use error::{Error, Result};
