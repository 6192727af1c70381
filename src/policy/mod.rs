//! Trained policies: saving, loading, and decisions.
//!
//! A [`Policy`] is everything that acting takes, for every environment: [`crate::mappo::Trainer::policy`] makes one, [`Policy::save`] and
//! [`Policy::load`] keep it in a file. It decides on the CPU ([`Policy::act`], microseconds for one decision) or on the device
//! ([`DevicePolicy`], thousands of environments at once). What it remembers is in a [`PolicyState`]. Several
//! policies decide together in an [`Ensemble`]. `docs/policies.md` is an introduction.

#[cfg(feature = "market")]
mod account;
mod act;
mod acting;
mod actions;
#[cfg(feature = "market")]
mod bars;
mod cpu;
mod device;
mod distribution;
mod ensemble;
mod export;
#[cfg(feature = "market")]
mod format_1;
#[cfg(feature = "market")]
mod live;
#[cfg(feature = "market")]
mod market;
mod metadata;
#[expect(clippy::module_inception, reason = "the file is named after its type, as all others are")]
mod policy;
mod state;
#[cfg(feature = "market")]
mod targets;

pub use crate::mappo::ActionMode;
pub use actions::Actions;
#[cfg(feature = "market")]
pub use bars::TrainingBars;
pub use device::DevicePolicy;
pub use ensemble::{Ensemble, EnsembleState};
#[cfg(feature = "onnx")]
pub use export::{Calibration, ExportWeights, OnnxOptions};
#[cfg(feature = "market")]
pub use live::{Decision, Holdings, Live};
#[cfg(feature = "market")]
pub use market::MarketMetadata;
pub use metadata::{ActionSpec, ModelMetadata, NetworkMetadata};
pub use policy::Policy;
pub use state::PolicyState;
#[cfg(feature = "market")]
pub use targets::Decisions;
