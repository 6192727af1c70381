//! Multi-agent PPO: decentralised actors, centralised critics, everything on the device.

mod config;
mod evaluation;
mod kernels;
mod normalization;
mod plan;
mod rollout;
pub mod snapshot;
mod trainer;
mod update;

pub use crate::nn::autotune::Autotune;
pub use crate::nn::{Activation, Cooperative, CriticInput, KernelConfig, Precision, Sharing};
pub use crate::ppo::write_metrics::Record;
pub use config::{AdvantageNorm, Algorithm, Config};
pub use evaluation::{EvalConfig, EvalResult, Evaluation};
pub use plan::Sizes;
pub use rollout::{ActionMode, Rollout};
pub use snapshot::Snapshots;
pub use trainer::{Phases, Progress, Trainer};
