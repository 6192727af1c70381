//! Weights on disk: safetensors with a JSON head.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::write_atomically;
use crate::nn::Layout;
use crate::{Error, Result};

/// Version of the format, raised when an old reader could not read a new file.
pub const FORMAT: u32 = 1;

/// Key of the JSON head. Everything is under one key because the order of several would differ from run to run.
const HEAD: &str = "phalanx";

/// Trained weights with what is needed to use them.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<H> {
    /// What describes the model: sizes, settings, scaling of the observations.
    pub metadata: H,
    /// The flat parameter buffer of the layout, padding included.
    pub weights: Vec<f32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Envelope<H> {
    format: u32,
    head: H,
}

impl<H: Serialize> Checkpoint<H> {
    /// Writes the tensors by name, without padding, in f32.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Checkpoint`] if the weights do not fit the layout.
    pub fn save(&self, path: &Path, layout: &Layout) -> Result<()> {
        let failed = |reason: String| Error::Checkpoint { path: path.into(), reason };
        if self.weights.len() < layout.params as usize * 4 {
            return Err(failed(format!(
                "{} weights for a layout of {}",
                self.weights.len(),
                layout.params * 4
            )));
        }
        let mut data = Vec::new();
        for tensor in &layout.tensors {
            let mut bytes = Vec::with_capacity(tensor.shape[0] * tensor.shape[1] * 4);
            for row in 0..tensor.shape[0] {
                let start = tensor.first + row * tensor.stride;
                bytes.extend(
                    self.weights[start..start + tensor.shape[1]].iter().flat_map(|w| w.to_le_bytes()),
                );
            }
            data.push((tensor, bytes));
        }
        let views: Vec<_> = data
            .iter()
            .map(|(tensor, bytes)| {
                let view = TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes);
                view.map(|view| (tensor.name.clone(), view)).map_err(|error| failed(error.to_string()))
            })
            .collect::<Result<_>>()?;
        let head = serde_json::to_string(&Envelope { format: FORMAT, head: &self.metadata })
            .map_err(|error| failed(error.to_string()))?;
        let metadata = Some(HashMap::from([(HEAD.to_string(), head)]));
        let bytes = safetensors::serialize(views, metadata).map_err(|error| failed(error.to_string()))?;
        write_atomically(path, &bytes)
    }
}

impl<H: DeserializeOwned> Checkpoint<H> {
    /// Reads a file and lays its tensors out; `layout` is called with the head.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Checkpoint`] if it is no safetensors file, was not written by this
    /// library, has another format version, or its tensors are not those of the layout.
    pub fn load(path: &Path, layout: impl FnOnce(&H) -> Result<Layout>) -> Result<(Self, Layout)> {
        let failed = |reason: String| Error::Checkpoint { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let damaged =
            |error: safetensors::SafeTensorError| failed(format!("no whole safetensors file ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let head = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEAD));
        let head = head.ok_or_else(|| failed("it was not written by phalanx: its head is missing".into()))?;
        #[derive(serde::Deserialize)]
        struct Version {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| failed(format!("its head cannot be read ({error})"));
        let Version { format } = serde_json::from_str(head).map_err(unreadable)?;
        if format != FORMAT {
            return Err(failed(format!(
                "it has format {format}; this version of phalanx reads format {FORMAT}"
            )));
        }
        let Envelope::<H> { head, .. } = serde_json::from_str(head).map_err(unreadable)?;
        let layout = layout(&head)?;
        let mut weights = vec![0f32; layout.params as usize * 4];
        for tensor in &layout.tensors {
            let view = file
                .tensor(&tensor.name)
                .map_err(|_| failed(format!("tensor `{}` is missing", tensor.name)))?;
            if view.shape() != tensor.shape || view.dtype() != Dtype::F32 {
                let (got, expected) = (view.shape(), tensor.shape);
                return Err(failed(format!(
                    "tensor `{}` is {got:?}, expected {expected:?} in f32",
                    tensor.name
                )));
            }
            for (row, bytes) in view.data().chunks_exact(tensor.shape[1] * 4).enumerate() {
                let start = tensor.first + row * tensor.stride;
                let row = &mut weights[start..start + tensor.shape[1]];
                for (weight, bytes) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *weight = f32::from_le_bytes(*bytes);
                }
            }
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(failed("it holds weights that are not finite numbers".into()));
        }
        Ok((Self { metadata: head, weights }, layout))
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
    fn weights_and_head_survive_and_bytes_repeat() {
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
        assert!(load().contains("no whole safetensors file"), "{}", load());
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
        assert!(load().contains("no whole safetensors file"), "{}", load());
        let mut broken = weights;
        broken[0] = f32::NAN;
        Checkpoint { metadata: 1u32, weights: broken }.save(&path, &shared).unwrap();
        assert!(load().contains("not finite"), "{}", load());
    }
}
