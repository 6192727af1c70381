//! The tensors of a policy by name.

use super::Policy;
use crate::{Error, Result};

/// The rows of a tensor, without padding.
pub(super) fn rows(policy: &Policy, name: &str) -> Result<Vec<Vec<f32>>> {
    let tensor = policy.layout().tensors.iter().find(|tensor| tensor.name == name);
    let tensor = tensor.ok_or_else(|| Error::Data(format!("the networks have no tensor `{name}`")))?;
    let [rows, columns] = tensor.shape;
    let row = |row: usize| {
        let first = tensor.first + row * tensor.stride;
        policy.weights().get(first..first + columns).map(<[f32]>::to_vec)
    };
    let all: Option<Vec<_>> = (0..rows).map(row).collect();
    all.ok_or_else(|| Error::shape("weights", policy.layout().params as usize * 4, policy.weights().len()))
}
