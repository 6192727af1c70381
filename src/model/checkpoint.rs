//! Model files: weights by name in safetensors, with metadata in JSON and a checksum of both.

use std::path::Path;

use safetensors::tensor::Dtype;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::envelope::{self, NamedTensor, failed, not_read_back};
#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::files::write_atomically;
use crate::nn::Layout;

/// Version of the format, raised when an old reader could not read a new file. Format 1 held the training configuration. The checksum
/// did not raise it: older versions of phalanx read files that have one, and ignore it; files without one, of those versions, are read
/// with a warning.
pub const FORMAT: u32 = 2;

/// Key of the metadata in the header of the file.
const KEY: &str = "phalanx";

/// The kind of file that the key stands for.
const KIND: &str = "model file of phalanx";

/// Begins the checksum, which is the last entry of the JSON text.
const CHECKSUM: &str = ",\"crc32\":";

/// Trained weights with the metadata that using them takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<M> {
    /// Describes the model: sizes, settings, scaling of the observations.
    pub metadata: M,
    /// The flat parameter buffer of the layout, padding included.
    pub weights: Vec<f32>,
}

/// Unknown keys are refused: a damaged `crc32` is not a file without a checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<M> {
    format: u32,
    // The name since format 1.
    #[serde(rename = "head")]
    metadata: M,
    /// Checksum of the text without this entry, and of all tensors.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    crc32: Option<u32>,
}

/// The value of a key that is there: `null` is none.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    u32::deserialize(value).map(Some)
}

impl<M: Serialize> Checkpoint<M> {
    /// The bytes of the file.
    pub(crate) fn serialize(&self, layout: &Layout) -> Result<Vec<u8>, String> {
        self.serialize_as(FORMAT, layout)
    }

    pub(crate) fn serialize_as(&self, format: u32, layout: &Layout) -> Result<Vec<u8>, String> {
        let expected = layout.params as usize * 4;
        if self.weights.len() < expected {
            let found = self.weights.len();
            return Err(format!("{found} weights, expected {expected} for this layout"));
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
        let envelope = Envelope { format, metadata: &self.metadata, crc32: None };
        let mut text = serde_json::to_string(&envelope).map_err(|error| error.to_string())?;
        let crc32 = envelope::checksum_of(&text, &tensors);
        text.pop();
        text += &format!("{CHECKSUM}{crc32}}}");
        envelope::serialize(KEY, text, &tensors)
    }
}

impl<M: Serialize + DeserializeOwned + PartialEq> Checkpoint<M> {
    /// Writes the tensors by name, without padding, in f32. Before anything is written, the bytes are read back as
    /// [`Checkpoint::load`] reads them, and compared.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if there are too few weights for the layout, or if the file could not be read back: for a
    /// number in the metadata or a weight that is not finite.
    pub fn save(&self, path: &Path, layout: &Layout) -> Result<()> {
        let bytes = self.serialize(layout).map_err(|reason| failed(path, reason))?;
        self.read_back(&bytes, layout).map_err(|reason| failed(path, not_read_back(&reason)))?;
        write_atomically(path, &bytes)
    }

    fn read_back(&self, bytes: &[u8], layout: &Layout) -> Result<(), String> {
        let (back, ..) = Self::parse(bytes, |_| Ok(layout.clone()))?;
        if back.metadata != self.metadata {
            return Err("its metadata would differ: a number in it is not finite".into());
        }
        let differs = |row: std::ops::Range<usize>| {
            let [saved, read] = [&self.weights, &back.weights].map(|weights| &weights[row.clone()]);
            saved.iter().zip(read).any(|(saved, read)| saved.to_bits() != read.to_bits())
        };
        for tensor in &layout.tensors {
            let mut rows = (0..tensor.shape[0]).map(|row| tensor.first + row * tensor.stride);
            if rows.any(|first| differs(first..first + tensor.shape[1])) {
                return Err(format!("tensor `{}` would have other weights", tensor.name));
            }
        }
        Ok(())
    }
}

impl<M: DeserializeOwned> Checkpoint<M> {
    /// Reads a file and arranges its tensors as `layout` says, which is called with the metadata. No more memory is taken than the
    /// file honestly has; weights are allocated only once the file is known to hold every tensor of the layout:
    /// metadata alone cannot ask for it. Logs a warning for a file without a checksum, which older versions wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is not a model of this format, does not match its checksum,
    /// if the metadata describe no layout, or if a tensor is missing, is not in the layout, has another shape or a value that is not
    /// finite.
    pub fn load(path: &Path, layout: impl FnOnce(&M) -> Result<Layout>) -> Result<(Self, Layout)> {
        Self::of_bytes(path, &envelope::read_file(path)?, layout)
    }

    /// [`Checkpoint::load`] of the bytes of a file.
    pub(crate) fn of_bytes(
        path: &Path,
        bytes: &[u8],
        layout: impl FnOnce(&M) -> Result<Layout>,
    ) -> Result<(Self, Layout)> {
        let (checkpoint, layout, checked) =
            Self::parse(bytes, layout).map_err(|reason| failed(path, reason))?;
        if !checked {
            tracing::warn!(
                path = %path.display(),
                "the model file has no checksum, so damage to it would go unnoticed: an older version of phalanx wrote it"
            );
        }
        Ok((checkpoint, layout))
    }

    /// The format of a file.
    pub(crate) fn format(bytes: &[u8]) -> Result<u32, String> {
        let (text, _) = envelope::read(bytes, KEY, KIND)?;
        envelope::check_format(&text, 1..=FORMAT)
    }

    /// Also returns whether the file has a checksum.
    fn parse(
        bytes: &[u8],
        layout: impl FnOnce(&M) -> Result<Layout>,
    ) -> Result<(Self, Layout, bool), String> {
        let (text, file) = envelope::read(bytes, KEY, KIND)?;
        envelope::check_format(&text, 1..=FORMAT)?;
        let Envelope::<M> { metadata, crc32, .. } = envelope::parse(&text)?;
        if let Some(crc32) = crc32 {
            let (checked, last) = text.rsplit_once(CHECKSUM).unwrap_or_default();
            if last != format!("{crc32}}}") {
                return Err("its checksum is not the last entry of its metadata".into());
            }
            envelope::verify(&format!("{checked}}}"), &file, crc32)?;
        }
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
        Ok((Self { metadata, weights }, layout, crc32.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
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
        let text = String::from_utf8_lossy(&bytes).replace("\\\"format\\\":2", "\\\"format\\\":9");
        assert!(text.contains(":9"));
        let changed: Vec<u8> = {
            let at = bytes.windows(12).position(|w| w == b"\\\"format\\\":2").unwrap();
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
        let forged = Checkpoint { metadata: 1u32, weights: broken };
        std::fs::write(&path, forged.serialize(&shared).unwrap()).unwrap();
        let error = load();
        assert!(error.contains("tensor `actor.0.norm.weight`: number 0 is NaN"), "{error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }

    /// JSON has no NaN and no infinity: serde_json writes `null`.
    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let layout = layout(Sharing::Shared);
        let weights = initial_weights(&layout, Activation::Relu, 1);
        let error = |metadata: (Vec<f32>, Option<f64>), weights: &[f32]| {
            let error = Checkpoint { metadata, weights: weights.to_vec() }.save(&path, &layout).unwrap_err();
            assert!(!path.exists() && matches!(error, Error::Checkpoint { .. }), "{error:?}");
            error.to_string()
        };
        let text = error((vec![1.5, f32::INFINITY], None), &weights);
        assert!(text.contains("could not be read back") && text.contains("after `"), "{text}");
        assert!(text.contains("[1.5,null`"), "the place is shown: {text}");
        // Read back as `None`.
        let text = error((vec![1.5], Some(f64::NAN)), &weights);
        assert!(text.contains("its metadata would differ"), "{text}");
        let mut broken = weights.clone();
        broken[layout.tensors[1].first] = f32::NAN;
        let text = error((vec![1.5], None), &broken);
        assert!(text.contains(&format!("tensor `{}`: number 0 is NaN", layout.tensors[1].name)), "{text}");
        // A careless parser reads some of these numbers as their neighbours.
        let mut random = crate::random::Stream::new(3, 0);
        let number = |_| random.normal() * 10f64.powi((random.uniform() * 40.0) as i32 - 20);
        let metadata: (Vec<f64>, f32, f32) = ((0..1000).map(number).collect(), 1e-45, f32::MAX);
        Checkpoint { metadata, weights }.save(&path, &layout).unwrap();
    }

    /// Every single bit of the header, and 200 random ones of the whole file.
    #[test]
    fn a_flipped_bit_is_refused() {
        let layout = layout(Sharing::Separate);
        let weights = initial_weights(&layout, Activation::Relu, 9);
        let checkpoint = Checkpoint { metadata: vec!["AAPL".to_string(), "a b".to_string()], weights };
        let bytes = checkpoint.serialize(&layout).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let mut random = crate::random::Stream::new(7, 0);
        let anywhere = (0..200).map(|_| (random.uniform() * (bytes.len() * 8) as f64) as usize);
        for bit in (0..header * 8).chain(anywhere) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Checkpoint::<Vec<String>>::parse(&flipped, |_| Ok(layout.clone()));
            assert!(read.is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn files_without_a_checksum_are_read_and_a_damaged_checksum_is_none() {
        let layout = layout(Sharing::Shared);
        let weights = initial_weights(&layout, Activation::Relu, 2);
        let checkpoint = Checkpoint { metadata: 5u32, weights };
        let written = checkpoint.serialize(&layout).unwrap();
        let (text, file) = envelope::read(&written, KEY, "").unwrap();
        let named = file.tensors().into_iter().map(|(name, view)| NamedTensor {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        });
        let tensors: Vec<_> = named.collect();
        let parse = |text: &str| {
            let bytes = envelope::serialize(KEY, text.into(), &tensors).unwrap();
            Checkpoint::<u32>::parse(&bytes, |_| Ok(layout.clone()))
                .map(|(read, _, checked)| (read == checkpoint, checked))
        };
        assert_eq!(parse(&text), Ok((true, true)));
        assert_eq!(parse(r#"{"format":1,"head":5}"#), Ok((true, false)), "as older versions wrote it");
        for (from, to) in
            [("crc32", "crc31"), ("\"head\":5", "\"head\":4"), ("}", "0}"), ("\"crc32\":", "\"crc32\": ")]
        {
            assert!(text.contains(from) && parse(&text.replace(from, to)).is_err(), "{from}");
        }
        let (start, _) = text.rsplit_once(CHECKSUM).unwrap();
        for value in ["null", "\"\"", "-1", "4294967296"] {
            assert!(parse(&format!("{start}{CHECKSUM}{value}}}")).is_err(), "{value}");
        }
    }

    /// Keys of up to 32 MiB, and names of tensors, are the file's.
    #[test]
    fn messages_about_files_are_short_and_visible() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let key = format!("\u{1b}[31m\u{202e}{}", "k".repeat(1 << 20));
        let tensor = |name: &str| NamedTensor {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![1],
            bytes: vec![0; 4],
        };
        let texts = [
            serde_json::json!({ "format": 1, "head": 5, (key.as_str()): 1 }).to_string(),
            serde_json::json!({ "format": 1, "head": key }).to_string(),
            r#"{"format":1,"head":5}"#.to_string(),
        ];
        for text in texts {
            let bytes = envelope::serialize(KEY, text, &[tensor(&key)]).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let empty = || Layout { tensors: vec![], ..layout(Sharing::Shared) };
            let error = Checkpoint::<u32>::load(&path, |_| Ok(empty())).unwrap_err().to_string();
            assert!(error.len() <= 2048, "{} bytes", error.len());
            assert!(!error.contains(crate::text::is_hidden), "{error:?}");
        }
    }

    /// Sparse files and a device without end.
    #[cfg(unix)]
    #[test]
    fn no_more_is_read_than_the_header_allows() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let load = |path: &Path| {
            Checkpoint::<u32>::load(path, |_| Ok(layout(Sharing::Shared))).unwrap_err().to_string()
        };
        let write = |header: u64, text: &str, length: u64| {
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(&header.to_le_bytes()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_len(length).unwrap();
        };
        let tensor =
            |bytes: u64| format!(r#"{{"a":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
        let ten_gigabytes = 10_000_000_000;
        assert!(load(Path::new("/dev/zero")).contains("not a safetensors file, or truncated"));
        write(0, "", ten_gigabytes);
        assert!(load(&path).contains("not a safetensors file, or truncated"));
        write(u64::MAX, "", ten_gigabytes);
        assert!(load(&path).contains("its header would have 18446744073709551615 bytes"), "{}", load(&path));
        let text = tensor(300_000_000_000);
        write(text.len() as u64, &text, 8 + text.len() as u64 + 300_000_000_000);
        assert!(load(&path).contains("more than the 274877906944 of the largest model"), "{}", load(&path));
        // Snapshots of the largest networks have more than 4 GiB.
        let text = tensor(12 * 400_000_000);
        write(text.len() as u64, &text, 12 * 400_000_000);
        assert!(
            load(&path).contains("it has 4800000000 bytes, and its header says 48000"),
            "{}",
            load(&path)
        );
        let text = tensor(1000);
        write(text.len() as u64, &text, ten_gigabytes);
        assert!(load(&path).contains("it has 10000000000 bytes, and its header says 106"), "{}", load(&path));
        // A pipe has no length.
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            let (reader, mut writer) = std::io::pipe().unwrap();
            let text = tensor(9_000_000_000);
            writer.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            let error = load(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd())));
            assert!(error.contains("more than the 4294967296 of the largest model"), "{error}");
        }
    }
}
