//! The file of a snapshot: tensors, metadata, and a checksum of both.

use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::env::Environment;
use crate::files::write_atomically;
use crate::mappo::{Config, Ratio};
use crate::model::envelope::{self, NamedTensor, failed, not_read_back};
use crate::nn::KernelConfig;

/// Version of the format, raised when older versions cannot read new files.
pub const FORMAT: u32 = 3;

/// Oldest version that is read. Runs of format 2 clipped the ratio of the whole action, and agents with separate networks shared
/// one ValueNorm.
const OLDEST: u32 = 2;

/// Key of the metadata in the header of the file.
const KEY: &str = "phalanx training";

/// A market's statistics, which a build without the feature `market` keeps as it finds them.
#[cfg(feature = "market")]
pub(in crate::mappo) type Statistics = crate::market::ScalingStatistics;
#[cfg(not(feature = "market"))]
pub(in crate::mappo) type Statistics = serde_json::Value;

/// The statistics of an environment for its snapshots.
#[cfg(feature = "market")]
pub(in crate::mappo) fn scaling_of(environment: &dyn Environment) -> Option<Statistics> {
    environment.scaling().cloned()
}

#[cfg(not(feature = "market"))]
pub(in crate::mappo) fn scaling_of(_: &dyn Environment) -> Option<Statistics> {
    None
}

/// Describes a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// The candles of a market ([`crate::env::Environment::candles`]). `None` for other environments and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candles: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scaling: Option<Statistics>,
}

#[cfg(feature = "market")]
impl SnapshotMetadata {
    /// Statistics with which a market's features are scaled: a resumed run is given them, for a fit by another version may differ in its
    /// last digits. `None` for other environments and in files of older versions.
    #[must_use]
    pub fn scaling(&self) -> Option<&crate::market::ScalingStatistics> {
        self.scaling.as_ref()
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "head")]
    metadata: String,
    /// Checksum of the metadata and all tensors. It detects corruption, not forgery.
    crc32: u32,
}

/// Writes a snapshot. Before anything is written, its bytes are read back as [`read`] reads them, and compared.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] if the snapshot could not be read back, for a number in the metadata that is not finite.
pub(super) fn write(path: &Path, metadata: &SnapshotMetadata, tensors: &[NamedTensor]) -> Result<()> {
    let bytes = serialize(metadata, tensors).map_err(|reason| failed(path, reason))?;
    read_back(&bytes, metadata, tensors).map_err(|reason| failed(path, not_read_back(&reason)))?;
    write_atomically(path, &bytes)
}

fn serialize(metadata: &SnapshotMetadata, tensors: &[NamedTensor]) -> Result<Vec<u8>, String> {
    let json = |error: serde_json::Error| error.to_string();
    let metadata = serde_json::to_string(metadata).map_err(json)?;
    let crc32 = envelope::checksum_of(&metadata, tensors);
    let text = serde_json::to_string(&Envelope { metadata, crc32 }).map_err(json)?;
    envelope::serialize(KEY, text, tensors)
}

fn read_back(bytes: &[u8], metadata: &SnapshotMetadata, tensors: &[NamedTensor]) -> Result<(), String> {
    let (back, file) = parse(bytes)?;
    if back != *metadata {
        return Err("its metadata would differ: a number in it is not finite".into());
    }
    let same = |tensor: &NamedTensor| {
        let view = file.tensor(&tensor.name).ok();
        view.is_some_and(|view| view.dtype() == tensor.dtype && view.data() == tensor.bytes)
    };
    match tensors.iter().find(|tensor| !same(tensor)) {
        Some(tensor) => Err(format!("`{}` would have other values", tensor.name)),
        None => Ok(()),
    }
}

/// Parses a snapshot and verifies its format and checksum. The values of its tensors are not validated.
///
/// # Errors
/// A message that names the fault.
pub(super) fn read(bytes: &[u8]) -> Result<(SnapshotMetadata, SafeTensors<'_>), String> {
    let (mut metadata, file) = parse(bytes)?;
    if metadata.format == 2 {
        metadata.config.ppo.ratio = Ratio::Joint;
    }
    Ok((metadata, file))
}

/// The metadata as the file has them.
fn parse(bytes: &[u8]) -> Result<(SnapshotMetadata, SafeTensors<'_>), String> {
    let (text, file) = envelope::read(bytes, KEY, "snapshot of a training run")?;
    let Envelope { metadata, crc32 } = envelope::parse(&text)?;
    envelope::check_format(&metadata, OLDEST..=FORMAT)?;
    envelope::verify(&metadata, &file, crc32)?;
    Ok((envelope::parse(&metadata)?, file))
}

/// Reads the metadata of a snapshot and verifies the checksum of the whole file.
///
/// # Errors
/// [`Error::Io`], [`Error::Checkpoint`].
pub fn read_metadata(path: &Path) -> Result<SnapshotMetadata> {
    let bytes = envelope::read_file(path)?;
    let (metadata, _) = read(&bytes).map_err(|reason| failed(path, reason))?;
    Ok(metadata)
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
