//! The worth of a result: splits of the bars on which agents are retrained and tested.
//!
//! Everything runs on the CPU in f64.

mod folds;

pub use folds::{Fold, combinatorial, expanding, paths, rolling};
