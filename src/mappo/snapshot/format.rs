//! The file of a snapshot: tensors, metadata, and a checksum of both.

use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::mappo::{Config, Ratio};
use crate::model::envelope::{self, NamedTensor, failed};
use crate::nn::KernelConfig;
use crate::{Error, Result};

/// Version of the format, raised when older versions cannot read new files.
pub const FORMAT: u32 = 3;

/// Oldest version that is read. Runs of format 2 clipped the ratio of the whole action, and agents with separate networks shared
/// one ValueNorm.
const OLDEST: u32 = 2;

/// Key of the metadata in the header of the file.
const KEY: &str = "phalanx training";

/// Describes a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotMetadata {
    /// Version of the format.
    pub format: u32,
    /// Version of phalanx that wrote it.
    pub version: String,
    /// GPU and driver; others may sum in another order.
    pub adapter: String,
    /// Settings of the run.
    pub config: Config,
    /// Identity of the environment ([`crate::env::Environment::identity`]).
    pub environment: String,
    /// Planned number of parallel environments.
    pub envs: u32,
    /// Planned number of steps per micro-batch.
    pub micro_slots: u32,
    /// Configuration of the network kernels.
    #[serde(rename = "decisions")]
    pub kernel_config: KernelConfig,
    /// Number of completed iterations.
    pub iteration: u32,
    /// Score of the evaluation at this iteration; larger is better.
    pub score: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "head")]
    metadata: String,
    /// Checksum of the metadata and all tensors. It detects corruption, not forgery.
    crc32: u32,
}

/// Writes a snapshot.
///
/// # Errors
/// [`Error::Io`], [`Error::Checkpoint`].
pub(super) fn write(path: &Path, metadata: &SnapshotMetadata, tensors: &[NamedTensor]) -> Result<()> {
    let unwritable = |error: serde_json::Error| failed(path, error.to_string());
    let metadata = serde_json::to_string(metadata).map_err(unwritable)?;
    let named = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.bytes.as_slice()));
    let crc32 = checksum(&metadata, named.collect());
    let text = serde_json::to_string(&Envelope { metadata, crc32 }).map_err(unwritable)?;
    envelope::write(path, KEY, text, tensors)
}

/// Parses a snapshot and verifies its format and checksum. The values of its tensors are not validated.
///
/// # Errors
/// A message that names the fault.
pub(super) fn read(bytes: &[u8]) -> Result<(SnapshotMetadata, SafeTensors<'_>), String> {
    let (text, file) = envelope::read(bytes, KEY, "snapshot of a training run")?;
    let Envelope { metadata, crc32 } = envelope::parse(&text)?;
    let format = envelope::check_format(&metadata, OLDEST..=FORMAT)?;
    let tensors = file.tensors();
    let named = tensors.iter().map(|(name, view)| (name.as_str(), view.data()));
    if checksum(&metadata, named.collect()) != crc32 {
        return Err("checksum mismatch: the file was modified or is corrupt".into());
    }
    let mut parsed: SnapshotMetadata = envelope::parse(&metadata)?;
    if format == 2 {
        parsed.config.ppo.ratio = Ratio::Joint;
    }
    Ok((parsed, file))
}

/// Reads the metadata of a snapshot and verifies the checksum of the whole file.
///
/// # Errors
/// [`Error::Io`], [`Error::Checkpoint`].
pub fn read_metadata(path: &Path) -> Result<SnapshotMetadata> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let (metadata, _) = read(&bytes).map_err(|reason| failed(path, reason))?;
    Ok(metadata)
}

/// CRC-32 of the metadata and of the names and bytes of the tensors, sorted by name, since safetensors decides their order in the
/// file.
fn checksum<'a>(metadata: &str, mut tensors: Vec<(&'a str, &'a [u8])>) -> u32 {
    tensors.sort_by_key(|(name, _)| *name);
    let mut crc = crc32fast::Hasher::new();
    crc.update(metadata.as_bytes());
    for (name, bytes) in tensors {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metadata of a snapshot as format 2 was first written, with the envelope's keys. Later versions have more settings.
    #[test]
    fn keys_of_format_2_are_stable() {
        let text = include_str!("../../../tests/fixtures/snapshot_metadata.json");
        let metadata: SnapshotMetadata = serde_json::from_str(text).unwrap();
        let mut kept = serde_json::to_value(&metadata).unwrap();
        let first: serde_json::Value = serde_json::from_str(text).unwrap();
        let settings = first["config"].as_object().unwrap();
        kept["config"].as_object_mut().unwrap().retain(|key, _| settings.contains_key(key));
        assert_eq!(kept, first);
        let envelope = Envelope { metadata: "text".into(), crc32: 7 };
        assert_eq!(serde_json::to_string(&envelope).unwrap(), r#"{"head":"text","crc32":7}"#);
    }
}
