//! Environments the agents act in.

pub mod ledger;
