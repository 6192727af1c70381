//! Model files: weights by name in safetensors, with metadata in JSON.

use std::path::Path;

use safetensors::tensor::Dtype;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::envelope::{self, NamedTensor, failed};
use crate::nn::Layout;
use crate::{Error, Result};

/// Version of the format, raised when an old reader could not read a new file.
pub const FORMAT: u32 = 1;

/// Key of the metadata in the header of the file.
const KEY: &str = "phalanx";

/// Trained weights with the metadata that using them takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<M> {
    /// Describes the model: sizes, settings, scaling of the observations.
    pub metadata: M,
    /// The flat parameter buffer of the layout, padding included.
    pub weights: Vec<f32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Envelope<M> {
    format: u32,
    // The name in files of format 1.
    #[serde(rename = "head")]
    metadata: M,
}

impl<M: Serialize> Checkpoint<M> {
    /// Writes the tensors by name, without padding, in f32.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Checkpoint`] if there are too few weights for the layout.
    pub fn save(&self, path: &Path, layout: &Layout) -> Result<()> {
        let expected = layout.params as usize * 4;
        if self.weights.len() < expected {
            let found = self.weights.len();
            return Err(failed(path, format!("{found} weights, expected {expected} for this layout")));
        }
        let tensors: Vec<_> = layout
            .tensors
            .iter()
            .map(|tensor| {
                let [rows, columns] = tensor.shape;
                let bytes = (0..rows).flat_map(|row| {
                    let first = tensor.first + row * tensor.stride;
                    self.weights[first..first + columns].iter().flat_map(|weight| weight.to_le_bytes())
                });
                NamedTensor {
                    name: tensor.name.clone(),
                    dtype: Dtype::F32,
                    shape: tensor.shape.to_vec(),
                    bytes: bytes.collect(),
                }
            })
            .collect();
        let text = serde_json::to_string(&Envelope { format: FORMAT, metadata: &self.metadata })
            .map_err(|error| failed(path, error.to_string()))?;
        envelope::write(path, KEY, text, &tensors)
    }
}

impl<M: DeserializeOwned> Checkpoint<M> {
    /// Reads a file and arranges its tensors as `layout` says, which is called with the metadata. Memory for weights is
    /// allocated only once the file is known to hold every tensor of the layout: metadata alone cannot ask for it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is not a model of this format, if the
    /// metadata describe no layout, or if a tensor is missing, is not in the layout, has another shape or a value that is not finite.
    pub fn load(path: &Path, layout: impl FnOnce(&M) -> Result<Layout>) -> Result<(Self, Layout)> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(&bytes, layout).map_err(|reason| failed(path, reason))
    }

    fn parse(bytes: &[u8], layout: impl FnOnce(&M) -> Result<Layout>) -> Result<(Self, Layout), String> {
        let (text, file) = envelope::read(bytes, KEY, "model file of phalanx")?;
        envelope::check_format(&text, FORMAT..=FORMAT)?;
        let Envelope::<M> { metadata, .. } = envelope::parse(&text)?;
        let layout = layout(&metadata).map_err(|error| error.to_string())?;
        for tensor in &layout.tensors {
            let name = &tensor.name;
            let view = file.tensor(name).map_err(|_| format!("tensor `{name}` is missing"))?;
            if view.shape() != tensor.shape || view.dtype() != Dtype::F32 {
                let (found, expected) = (view.shape(), tensor.shape);
                let dtype = view.dtype();
                return Err(format!("tensor `{name}` is {dtype:?} {found:?}, expected F32 {expected:?}"));
            }
            envelope::all_finite(Dtype::F32, view.data())
                .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        }
        let known = |name: &str| layout.tensors.iter().any(|tensor| tensor.name == name);
        if let Some(other) = file.names().into_iter().find(|name| !known(name)) {
            return Err(format!("tensor `{other}` is not part of these networks"));
        }
        let mut weights = vec![0f32; layout.params as usize * 4];
        for tensor in &layout.tensors {
            let view = file.tensor(&tensor.name).map_err(|error| error.to_string())?;
            for (row, bytes) in view.data().chunks_exact(tensor.shape[1] * 4).enumerate() {
                let first = tensor.first + row * tensor.stride;
                let row = &mut weights[first..first + tensor.shape[1]];
                for (weight, bytes) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *weight = f32::from_le_bytes(*bytes);
                }
            }
        }
        Ok((Self { metadata, weights }, layout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::initial_weights;
    use crate::nn::{Activation, Shape, Sharing};

    fn layout(sharing: Sharing) -> Layout {
        Layout::new(&Shape {
            agents: 2,
            obs_dim: 3,
            actions: 3,
            hidden: vec![6],
            sharing,
            ..Shape::default()
        })
        .unwrap()
    }

    #[test]
    fn weights_and_metadata_survive_and_bytes_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(Sharing::Separate);
        let weights = initial_weights(&layout, Activation::Relu, 9);
        let checkpoint = Checkpoint { metadata: vec!["AAPL".to_string()], weights };
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            checkpoint.save(path, &layout).unwrap();
        }
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        let (back, _) = Checkpoint::<Vec<String>>::load(&paths[0], |_| Ok(layout.clone())).unwrap();
        assert_eq!(back, checkpoint);
    }

    #[test]
    fn unusable_files_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let shared = layout(Sharing::Shared);
        let load = || {
            let loaded = Checkpoint::<u32>::load(&path, |_| Ok(shared.clone()));
            loaded.unwrap_err().to_string()
        };
        assert!(load().contains("model.safetensors"));
        let weights = initial_weights(&shared, Activation::Relu, 1);
        Checkpoint { metadata: 1u32, weights: weights.clone() }.save(&path, &shared).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(load().contains("not a safetensors file, or truncated"), "{}", load());
        let text = String::from_utf8_lossy(&bytes).replace("\\\"format\\\":1", "\\\"format\\\":9");
        assert!(text.contains(":9"));
        let changed: Vec<u8> = {
            let at = bytes.windows(12).position(|w| w == b"\\\"format\\\":1").unwrap();
            let mut changed = bytes.clone();
            changed[at + 11] = b'9';
            changed
        };
        std::fs::write(&path, changed).unwrap();
        assert!(load().contains("format 9"), "{}", load());
        let separate = layout(Sharing::Separate);
        let other = initial_weights(&separate, Activation::Relu, 1);
        Checkpoint { metadata: 1u32, weights: other }.save(&path, &separate).unwrap();
        assert!(load().contains("tensor `actor.0.norm.weight` is missing"), "{}", load());
        std::fs::write(&path, b"not a model").unwrap();
        assert!(load().contains("not a safetensors file, or truncated"), "{}", load());
        let mut broken = weights;
        broken[0] = f32::NAN;
        Checkpoint { metadata: 1u32, weights: broken }.save(&path, &shared).unwrap();
        let error = load();
        assert!(error.contains("tensor `actor.0.norm.weight`: number 0 is NaN"), "{error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }
}
