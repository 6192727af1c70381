//! Multi-agent PPO with decentralised actors and centralised critics, entirely on the device.

pub(crate) mod buffers;
mod config;
mod evaluation;
mod health;
mod kernels;
mod memory_plan;
mod normalization;
mod pretrained;
mod profile;
mod progress;
pub(crate) mod rollout;
pub(crate) mod setup;
mod sizes;
pub mod snapshot;
mod trainer;
mod training;
mod update;

pub use crate::nn::autotune::Autotune;
pub use crate::nn::{Activation, Blocks, Cooperative, CriticInput, KernelConfig, Precision, Sharing};
pub use crate::ppo::write_metrics::Record;
pub use config::{
    AdvantageNorm, Algorithm, Config, DeviceConfig, NetworkConfig, OptimizerConfig, PpoConfig, Ratio,
};
pub use evaluation::{EvalConfig, EvalResult, Evaluation};
pub use progress::{Phases, Progress};
pub use rollout::ActionMode;
pub use sizes::Sizes;
pub use snapshot::Snapshots;
pub use trainer::Trainer;
pub use training::Verdict;
