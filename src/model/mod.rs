//! The actor-critic: initial weights and checkpoints.

mod checkpoint;
pub(crate) mod envelope;
mod init;

pub use crate::nn::{Layout, Shape, Tensor};
pub use checkpoint::{Checkpoint, FORMAT};
pub use init::initial_weights;
