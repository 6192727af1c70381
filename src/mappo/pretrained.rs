//! Weights of a model file as the start of another training.

use std::path::Path;

use super::trainer::Trainer;
#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::model::Checkpoint;
use crate::model::envelope::failed;

impl Trainer {
    /// Starts from the weights of a model file instead of random ones: call it before the first iteration. Every tensor is looked up by
    /// its name and must have the shape that these settings give; the file must have no others. With
    /// [`observation_norm`](super::NetworkConfig::observation_norm) the running statistics of the observations are loaded too; those
    /// of a global state start from this trainer's environment. The optimizer, the value normalisation and the environments
    /// stay as they are; [`Trainer::resume`] continues a run with all of them.
    ///
    /// # Errors
    /// [`Error::Shape`] while iterations are in flight; [`Error::Io`]; [`Error::Checkpoint`] if the file is not a model file, holds
    /// other tensors or shapes, a number that is not finite, or the statistics that only one of the two has. Then nothing
    /// has changed.
    pub fn load_weights(&mut self, path: &Path) -> Result<()> {
        self.between_iterations()?;
        let (model, _) = Checkpoint::<serde_json::Value>::load(path, |_| Ok(self.layout.clone()))?;
        let moments = self.saved_moments(&model.metadata).map_err(|reason| failed(path, reason))?;
        self.gpu.write(&self.buffers.networks.params, 0, bytemuck::cast_slice(&model.weights))?;
        if let Some(normalization) = &self.buffers.normalization {
            self.gpu.write(&normalization.observation_stats, 0, bytemuck::cast_slice(&moments))?;
        }
        self.recorder.run(&self.rollout.prepare)?;
        Ok(())
    }

    /// The statistics of the observations in a model's metadata, for every agent and feature; empty without `observation_norm`.
    fn saved_moments(&self, metadata: &serde_json::Value) -> Result<Vec<[f32; 4]>, String> {
        let saved = metadata.get("observation_moments").cloned().unwrap_or(serde_json::Value::Array(vec![]));
        let moments: Vec<[f32; 4]> =
            serde_json::from_value(saved).map_err(|error| format!("its `observation_moments`: {error}"))?;
        let spec = self.sizes.spec;
        let expected = if self.sizes.normalized { (spec.agents * spec.obs_dim) as usize } else { 0 };
        if moments.len() != expected {
            let reason = match (moments.is_empty(), expected) {
                (false, 0) => "it was trained with `observation_norm = true`: set it here too".into(),
                (true, _) => "it was trained with `observation_norm = false`: set it here too".into(),
                _ => format!("it has statistics of {} features, expected {expected}", moments.len()),
            };
            return Err(reason);
        }
        let valid = |[mean, remainder, squares, count]: [f32; 4]| {
            [mean, remainder, squares, count].iter().all(|value| value.is_finite())
                && squares >= 0.0
                && count >= 0.0
        };
        match moments.iter().position(|moments| !valid(*moments)) {
            None => Ok(moments),
            Some(index) => Err(format!(
                "its `observation_moments` {index} are {:?}, expected finite numbers, the last two of at least 0",
                moments[index]
            )),
        }
    }
}
