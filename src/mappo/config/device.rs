//! Settings of the device: the memory budget. Precision has no range to check.

use super::{Config, range};
use crate::Result;

pub(super) fn validate(config: &Config) -> Result<()> {
    match config.memory_budget_mb {
        Some(budget) => range("memory_budget_mb", budget as f64, 1.0, 1e7),
        None => Ok(()),
    }
}
