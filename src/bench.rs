//! Kernels for the benchmarks of this repository; not a stable interface.
//!
//! These kernels run without bounds checks: their callers are responsible for the sizes of all buffers. Only `benches/` uses
//! this module, through the cargo feature `bench`.

pub use crate::nn::synthetic_pass::SyntheticPass;
pub use crate::nn::{Batch, ForwardPart, LossPart, RecurrentPart, fold, matmul, reduce};
pub use crate::ppo::{ActionKind, adamw, advantage_stats, advantage_sums, gae, loss, sample, scalars};
