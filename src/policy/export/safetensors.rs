//! Plain tensors in a safetensors file, for PyTorch, JAX and others.

use half::f16;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::Policy;
use super::preparation::{normalization, scaling};
use super::tensors::rows;
use crate::model::envelope::{self, NamedTensor};
use crate::nn::Tensor;
use crate::{Error, Result};

impl Policy {
    /// The bytes of a safetensors file with all tensors by name, without padding, in f32 or (with `half`) in f16, and a description as
    /// JSON under the key `description`. Weights are `[inputs][outputs]`, the transpose of PyTorch's. Statistics of scaling and
    /// normalisation are tensors in f32. Unlike a file of [`Policy::save`], phalanx does not load it again.
    ///
    /// # Errors
    /// [`Error::Data`] names a weight that f16 cannot hold.
    pub fn export_safetensors(&self, half: bool) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for tensor in &self.layout().tensors {
            tensors.push(weights(self, tensor, half)?);
        }
        let network = &self.metadata().network;
        let [agents, features] = [network.agents, network.obs_dim].map(|size| size as usize);
        let shape = [agents, features];
        let mut statistic = |name: &str, shape: &[usize], values: &[f32]| {
            tensors.push(floats(name.into(), shape, values));
        };
        if let Some(scaling) = scaling(self) {
            statistic("scaling.mean", &shape, &scaling.mean);
            statistic("scaling.deviation", &shape, &scaling.deviation);
            statistic("scaling.limit", &shape, &scaling.limit);
        }
        let state = self.layout().shape.stored_state() as usize;
        for (name, first, shape) in
            [("observations", 0, &shape[..]), ("state", agents * features, &[state][..])]
        {
            let columns = shape.iter().product();
            if let Some(own) = normalization(self, first, columns).filter(|_| columns > 0) {
                statistic(&format!("normalization.{name}.mean"), shape, &own.mean);
                statistic(&format!("normalization.{name}.remainder"), shape, &own.remainder);
                statistic(&format!("normalization.{name}.scale"), shape, &own.scale);
            }
        }
        envelope::serialize("description", self.description().to_string(), &tensors).map_err(Error::Data)
    }

    fn description(&self) -> Value {
        let metadata = self.metadata();
        let agents: Vec<_> =
            (0..metadata.network.agents as usize).map(|agent| metadata.agent(agent)).collect();
        let market = serde_json::to_value(&metadata.market).unwrap_or_default();
        json!({
            "version": metadata.version,
            "network": metadata.network,
            "actions": metadata.actions,
            "agents": agents,
            "features": metadata.features,
            "market": market.get("settings"),
            "conventions": {
                "weight": "[inputs][outputs]: y = x @ weight + bias",
                "bias": "[outputs], or [agents][outputs] in the first layer of networks that know the agent",
                "norm": "LayerNorm of a layer's input, epsilon 1e-5",
                "gru": "columns of gru.input: candidate, reset, update; of gru.state: reset, update, candidate; \
                        h' = n + z (h - n), n = tanh(in_n + r * (state_n))",
                "scaling": "clamp((x - mean) / deviation, -limit, limit) of raw features",
                "normalization": "clamp((x - mean - remainder) * scale, -10, 10), after the scaling",
            },
        })
    }
}

/// A tensor of the networks.
fn weights(policy: &Policy, tensor: &Tensor, half: bool) -> Result<NamedTensor> {
    let values = rows(policy, &tensor.name)?.concat();
    let vector = tensor.shape[0] == 1 && !tensor.name.ends_with(".weight") || tensor.name.contains("norm.");
    let shape = if vector { &tensor.shape[1..] } else { &tensor.shape[..] };
    if !half {
        return Ok(floats(tensor.name.clone(), shape, &values));
    }
    let bytes = halves(&tensor.name, &values)?;
    Ok(NamedTensor { name: tensor.name.clone(), dtype: Dtype::F16, shape: shape.to_vec(), bytes })
}

fn floats(name: String, shape: &[usize], values: &[f32]) -> NamedTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    NamedTensor { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

/// Little-endian f16.
///
/// # Errors
/// [`Error::Data`] for a weight out of range.
pub(super) fn halves(name: &str, values: &[f32]) -> Result<Vec<u8>> {
    if let Some(weight) = values.iter().find(|weight| !f16::from_f32(**weight).is_finite()) {
        return Err(Error::Data(format!(
            "a weight of `{name}` is {weight}, and f16 ends at 65504: export the model in f32"
        )));
    }
    Ok(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
}
