//! Multi-agent PPO: decentralised actors, centralised critics, everything on the device.

mod config;
mod plan;
mod rollout;
mod trainer;
mod update;

pub use crate::nn::Precision;
pub use config::Config;
pub use plan::Sizes;
pub use rollout::{Choice, Rollout};
pub use trainer::{Progress, Trainer};
