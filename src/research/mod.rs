//! The worth of a result: splits of the bars on which agents are retrained and tested.
//!
//! Everything runs on the CPU in f64.

mod baselines;
mod folds;

pub use baselines::{Baseline, RandomTiming, random_timing};
pub use folds::{Fold, combinatorial, expanding, paths, rolling};
