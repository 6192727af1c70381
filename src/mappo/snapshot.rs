//! Training saved to the last bit: weights, optimizer, normalisation, loss scale, counters, and the environments where they
//! stand. A run that goes on from a snapshot comes to the bytes of one that was never stopped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Config, Trainer};
use crate::env::{HostState, State};
use crate::files::write_atomically;
use crate::nn::forward::Memory;
use crate::nn::{KernelConfig, Precision};
use crate::{Error, Result};

/// Version of the format, raised when an old reader could not read a new file.
pub const FORMAT: u32 = 2;

/// Key of the JSON head in the safetensors file.
const HEAD: &str = "phalanx training";

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotMetadata {
    /// Version of the format.
    pub format: u32,
    /// Version of phalanx that wrote it.
    pub version: String,
    /// GPU and driver: another one sums in another order.
    pub adapter: String,
    /// Settings of the run.
    pub config: Config,
    /// What the environment is ([`crate::env::Environment::identity`]).
    pub environment: String,
    /// Environments in parallel, as planned.
    pub envs: u32,
    /// Steps of a micro-batch, as planned.
    pub micro_slots: u32,
    /// Forms of the networks' kernels.
    #[serde(rename = "decisions")]
    pub kernel_config: KernelConfig,
    /// Iterations done.
    pub iteration: u32,
    /// What evaluation came to at this point; larger is better.
    pub score: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    metadata: String,
    /// Of the head and of all tensors.
    crc32: u32,
}

/// A part of a buffer that belongs to a snapshot.
struct Part {
    name: String,
    dtype: Dtype,
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

impl Trainer {
    fn metadata(&self, score: Option<f64>) -> SnapshotMetadata {
        let info = self.gpu.info();
        SnapshotMetadata {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            adapter: format!("{} {:?} {} {}", info.name, info.backend, info.driver, info.driver_info),
            config: self.config.clone(),
            environment: self.identity.clone(),
            envs: self.sizes.envs,
            micro_slots: self.sizes.micro_slots,
            kernel_config: self.kernel_config,
            iteration: self.submitted,
            score,
        }
    }

    fn parts(&self) -> Vec<Part> {
        let sizes = &self.sizes;
        let storage = sizes.observed_storage(self.kernel_config.storage);
        let stored = storage.precision().bytes();
        let observations = if storage.precision() == Precision::F16 { Dtype::F16 } else { Dtype::F32 };
        let observed = self.buffers.observed();
        let (own, update) = (&self.buffers.rollout, &self.update_buffers);
        let whole = |name: &str, buffer: &wgpu::Buffer, dtype| Part {
            name: name.into(),
            dtype,
            bytes: buffer.size(),
            buffer: buffer.clone(),
            offset: 0,
        };
        let mut parts = vec![
            whole("params", &self.buffers.networks.params, Dtype::F32),
            whole("first moments", &update.first_moments, Dtype::F32),
            whole("second moments", &update.second_moments, Dtype::F32),
            whole("optimizer", &update.optimizer, Dtype::F32),
            whole("scalars", &own.scalars, Dtype::F32),
            whole("clock", &own.iteration, Dtype::U32),
            whole("episodes", &own.episodes, Dtype::F32),
        ];
        // Slot 0 of the next rollout.
        let name = if sizes.normalized { "raw observations" } else { "observations" };
        parts.push(Part { bytes: sizes.observed() * stored, ..whole(name, observed, observations) });
        if sizes.state_dim > 0 {
            parts.push(Part {
                offset: sizes.first_state() * stored,
                bytes: sizes.states() * stored,
                ..whole("states of the environments", observed, observations)
            });
        }
        if let Some(normalization) = &self.buffers.normalization {
            parts.push(whole("observation moments", &normalization.observation_stats, Dtype::F32));
        }
        parts.push(Part {
            offset: u64::from(sizes.first_mask()) * 4,
            bytes: u64::from(sizes.rows_of_slot()) * 4,
            ..whole("masks", &own.dones_and_masks, Dtype::U32)
        });
        if let Some(recurrent) = &self.buffers.recurrent {
            let bytes = sizes.memory_bytes(&self.layout);
            let offset = u64::from(Memory::place(0, sizes.chunk)) * bytes;
            parts.push(Part { offset, bytes, ..whole("recurrent states", &recurrent.states, Dtype::F32) });
            parts.push(Part {
                offset: sizes.endings() * 4,
                bytes: u64::from(sizes.envs) * 4,
                ..whole("endings", &own.dones_and_masks, Dtype::U32)
            });
        }
        for (number, state) in self.rollout.state.iter().enumerate() {
            if let State::Device(buffer) = state {
                parts.push(Part {
                    name: environment(number),
                    dtype: Dtype::U32,
                    bytes: buffer.size(),
                    buffer: buffer.clone(),
                    offset: 0,
                });
            }
        }
        parts
    }

    /// State that lies on the host, and its name.
    fn host_states(&self) -> impl Iterator<Item = (String, &Arc<dyn HostState>)> {
        self.rollout.state.iter().enumerate().filter_map(|(number, state)| match state {
            State::Host(state) => Some((environment(number), state)),
            State::Device(_) => None,
        })
    }

    /// Iterations done.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        self.collected
    }

    /// Writes everything under a temporary name, flushes it and renames. Between iterations only.
    ///
    /// # Errors
    /// [`Error::Shape`] while iterations are in flight, [`Error::Io`], [`Error::DeviceLost`].
    pub fn save(&self, path: &Path, score: Option<f64>) -> Result<()> {
        if self.submitted != self.collected {
            return Err(Error::shape("iterations in flight", 0, self.submitted - self.collected));
        }
        let failed = |reason: String| Error::Checkpoint { path: path.into(), reason };
        let metadata =
            serde_json::to_string(&self.metadata(score)).map_err(|error| failed(error.to_string()))?;
        let mut data: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
        for part in self.parts() {
            let bytes = self.gpu.read_range(&part.buffer, part.offset, part.bytes)?;
            data.push((part.name, part.dtype, bytes));
        }
        for (name, state) in self.host_states() {
            data.push((name, Dtype::U8, state.save()?));
        }
        let named = data.iter().map(|(name, _, bytes)| (name.as_str(), bytes.as_slice()));
        let crc32 = checksum(&metadata, named.collect());
        let views: Vec<_> = data
            .iter()
            .map(|(name, dtype, bytes)| {
                let length = bytes.len() * 8 / dtype.bitsize();
                Ok((name.as_str(), TensorView::new(*dtype, vec![length], bytes)?))
            })
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(|error| failed(error.to_string()))?;
        let envelope = serde_json::to_string(&Envelope { metadata, crc32 })
            .map_err(|error| failed(error.to_string()))?;
        let metadata = Some(HashMap::from([(HEAD.to_string(), envelope)]));
        let bytes = safetensors::serialize(views, metadata).map_err(|error| failed(error.to_string()))?;
        write_atomically(path, &bytes)
    }

    /// Goes on from a snapshot, in place of where this trainer stands. If the file does not allow it, nothing has changed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if the file is truncated or altered, or is from other settings, another
    /// environment or another plan.
    pub fn resume(&mut self, path: &Path) -> Result<SnapshotMetadata> {
        let failed = |reason: String| Error::Checkpoint { path: path.into(), reason };
        if self.submitted != self.collected {
            return Err(Error::shape("iterations in flight", 0, self.submitted - self.collected));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let (metadata, file) = open(&bytes).map_err(&failed)?;
        let own = self.metadata(None);
        differs(&metadata, &own).map_or(Ok(()), |reason| Err(failed(reason)))?;
        let parts = self.parts();
        for part in &parts {
            let view = file.tensor(&part.name).map_err(|_| failed(format!("`{}` is missing", part.name)))?;
            if view.dtype() != part.dtype || view.data().len() as u64 != part.bytes {
                let (got, wanted) = (view.data().len(), part.bytes);
                return Err(failed(format!("`{}` has {got} bytes, expected {wanted}", part.name)));
            }
        }
        if metadata.adapter != own.adapter
            || metadata.kernel_config != own.kernel_config
            || metadata.micro_slots != own.micro_slots
        {
            tracing::warn!(
                saved = %metadata.adapter, here = %own.adapter,
                "the run was on another adapter, or with other kernels: it goes on, but not to the same last bits"
            );
        }
        // What may still refuse comes first.
        for (name, state) in self.host_states() {
            let view = file.tensor(&name).map_err(|_| failed(format!("`{name}` is missing")))?;
            state.load(view.data()).map_err(|error| failed(error.to_string()))?;
        }
        for part in &parts {
            // Present: looked at above.
            if let Ok(view) = file.tensor(&part.name) {
                self.gpu.write(&part.buffer, part.offset, view.data())?;
            }
        }
        self.recorder.run(&self.rollout.prepare)?;
        self.set_iteration(metadata.iteration);
        Ok(metadata)
    }
}

fn environment(number: usize) -> String {
    format!("environment {number}")
}

/// The head of a snapshot, and that the file is whole.
///
/// # Errors
/// [`Error::Io`], [`Error::Checkpoint`].
pub fn read_metadata(path: &Path) -> Result<SnapshotMetadata> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let (metadata, _) = open(&bytes).map_err(|reason| Error::Checkpoint { path: path.into(), reason })?;
    Ok(metadata)
}

fn open(bytes: &[u8]) -> Result<(SnapshotMetadata, SafeTensors<'_>), String> {
    let damaged = |error: safetensors::SafeTensorError| format!("no whole safetensors file ({error})");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let envelope = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEAD));
    let envelope = envelope.ok_or("it is no snapshot of a training run: its head is missing")?;
    let unreadable = |error: serde_json::Error| format!("its head cannot be read ({error})");
    let Envelope { metadata: text, crc32 } = serde_json::from_str(envelope).map_err(unreadable)?;
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_str(&text).map_err(unreadable)?;
    if format != FORMAT {
        return Err(format!("it has format {format}; this version of phalanx reads format {FORMAT}"));
    }
    let tensors = file.tensors();
    let named = tensors.iter().map(|(name, view)| (name.as_str(), view.data()));
    if checksum(&text, named.collect()) != crc32 {
        return Err("it was altered: its checksum is another one".into());
    }
    Ok((serde_json::from_str(&text).map_err(unreadable)?, file))
}

/// Of the metadata, and of names and contents of the tensors, whose order is left to safetensors.
fn checksum<'a>(metadata: &str, mut tensors: Vec<(&'a str, &'a [u8])>) -> u32 {
    tensors.sort_by_key(|(name, _)| *name);
    let mut crc = flate2::Crc::new();
    crc.update(metadata.as_bytes());
    for (name, bytes) in tensors {
        crc.update(name.as_bytes());
        crc.update(bytes);
    }
    crc.sum()
}

/// The first thing in which a saved run is another one.
fn differs(saved: &SnapshotMetadata, here: &SnapshotMetadata) -> Option<String> {
    if saved.environment != here.environment {
        return Some(format!(
            "it is from another environment: {} there, {} here",
            saved.environment, here.environment
        ));
    }
    let (Ok(serde_json::Value::Object(there)), Ok(serde_json::Value::Object(own))) =
        (serde_json::to_value(&saved.config), serde_json::to_value(&here.config))
    else {
        return Some("its settings cannot be compared".into());
    };
    for (key, value) in &own {
        // A run may be given more iterations, unless something moves towards the last one.
        let moves = here.config.learning_rate_decay || here.config.entropy_end.is_some();
        let longer = key == "iterations" && !moves;
        if there.get(key) != Some(value) && !longer {
            let other = there.get(key).map_or("nothing".into(), ToString::to_string);
            return Some(format!("it is from other settings: `{key}` is {other} there, {value} here"));
        }
    }
    (saved.envs != here.envs)
        .then(|| format!("it has {} environments, and there is memory for {} here", saved.envs, here.envs))
}

/// A folder of snapshots: the last few, and the best.
#[derive(Clone, Debug)]
pub struct Snapshots {
    folder: PathBuf,
    keep: usize,
}

const BEST: &str = "best.safetensors";

impl Snapshots {
    /// Keeps the last `keep` (at least one) in `folder`, which is created. What a crash left half-written is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path, keep: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.extension().is_some_and(|ending| ending == "tmp") {
                std::fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(Self { folder: folder.into(), keep: keep.max(1) })
    }

    /// Saves where training stands; as the best, too, if `score` is above that of the best so far.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    pub fn save(&self, trainer: &Trainer, score: Option<f64>) -> Result<()> {
        trainer
            .save(&self.folder.join(format!("iteration-{:09}.safetensors", trainer.iteration())), score)?;
        if let Some(score) = score {
            let best = self.folder.join(BEST);
            let before = match best.exists().then(|| read_metadata(&best)) {
                Some(Ok(metadata)) => metadata.score,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the best so far cannot be read and is replaced");
                    None
                }
                None => None,
            };
            if before.is_none_or(|before| score > before) {
                trainer.save(&best, Some(score))?;
            }
        }
        let mut all = self.all()?;
        all.truncate(all.len().saturating_sub(self.keep));
        all.iter().try_for_each(|path| std::fs::remove_file(path).map_err(Error::io(path)))
    }

    /// The newest that is whole; of newer ones that are not a warning is logged.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if there are some and none is whole.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        let mut fault = None;
        for path in self.all()?.into_iter().rev() {
            match read_metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(error) => {
                    tracing::warn!(%error, "an older checkpoint is tried");
                    fault.get_or_insert(error);
                }
            }
        }
        fault.map_or(Ok(None), Err)
    }

    /// The one with the highest score.
    #[must_use]
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.folder.join(BEST)).filter(|path| path.exists())
    }

    /// Oldest first.
    fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(&self.folder))?;
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("iteration-") && name.ends_with(".safetensors")
        });
        paths.sort();
        Ok(paths)
    }
}
