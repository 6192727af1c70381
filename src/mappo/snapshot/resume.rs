//! Saving a trainer and resuming it.

use std::path::Path;

use safetensors::tensor::Dtype;

use super::format::{self, FORMAT, SnapshotMetadata};
use super::parts::MAX_ITERATIONS;
use crate::mappo::{Algorithm, Config, Trainer};
use crate::model::envelope::{self, NamedTensor, failed, not_read_back};
use crate::{Error, Result};

impl Trainer {
    fn snapshot_metadata(&self, score: Option<f64>) -> SnapshotMetadata {
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
            candles: self.candles.clone(),
            scaling: self.scaling.clone(),
        }
    }

    /// Number of completed iterations.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        self.collected
    }

    /// Writes a snapshot atomically, between iterations. Values are validated as [`Trainer::resume`] does, and all bytes are read back,
    /// before anything is written. States of simulators are compared as bytes: only [`Trainer::resume`] loads them.
    ///
    /// # Errors
    /// [`Error::Shape`] while iterations are in flight; [`Error::Data`] if the environment cannot be saved or an iteration failed
    /// half-way; [`Error::Checkpoint`] if the run could not be resumed from the file, for instance because a weight is not finite;
    /// [`Error::Io`], [`Error::DeviceLost`].
    pub fn save(&self, path: &Path, score: Option<f64>) -> Result<()> {
        self.between_iterations()?;
        self.not_interrupted()?;
        let mut tensors = Vec::new();
        for part in self.parts(self.submitted) {
            let bytes = self.gpu.read_range(&part.buffer, part.offset, part.bytes)?;
            (part.check)(&bytes)
                .map_err(|reason| failed(path, not_read_back(&format!("`{}`: {reason}", part.name))))?;
            let shape = vec![bytes.len() * 8 / part.dtype.bitsize()];
            tensors.push(NamedTensor { name: part.name, dtype: part.dtype, shape, bytes });
        }
        for (name, state) in self.host_states() {
            let bytes = state.save()?;
            tensors.push(NamedTensor { name, dtype: Dtype::U8, shape: vec![bytes.len()], bytes });
        }
        format::write(path, &self.snapshot_metadata(score), &tensors)
    }

    /// Restores the state of this trainer from a snapshot. All values are validated before the first one is written, so a
    /// rejected file changes nothing.
    ///
    /// The settings may have more [`iterations`](crate::mappo::PpoConfig::iterations) than the snapshot's: a finished run is then
    /// trained further. A learning rate or entropy coefficient with a schedule follows that of the larger number from here on.
    ///
    /// # Errors
    /// [`Error::Shape`] while iterations are in flight; [`Error::Io`]; [`Error::Checkpoint`] if the file is corrupt, was saved with
    /// other settings, another environment or another plan, or contains a value that training could not have written.
    pub fn resume(&mut self, path: &Path) -> Result<SnapshotMetadata> {
        self.between_iterations()?;
        let bytes = envelope::read_file(path)?;
        let metadata = self.restore(&bytes).map_err(|error| match error {
            RestoreError::File(reason) => failed(path, reason),
            RestoreError::Device(error) => error,
        })?;
        self.recorder.run(&self.rollout.prepare)?;
        self.set_iteration(metadata.iteration);
        Ok(metadata)
    }

    fn restore(&self, bytes: &[u8]) -> Result<SnapshotMetadata, RestoreError> {
        let (metadata, file) = format::read(bytes)?;
        let own = self.snapshot_metadata(None);
        if metadata.format == 2 && self.sizes.groups > 1 {
            return Err(RestoreError::File(
                "it has format 2, in which agents with separate networks share one ValueNorm; now each has its own: \
                 resume with the version that wrote it, or train anew"
                    .into(),
            ));
        }
        if metadata.format == 2 && self.sizes.shuffled() {
            return Err(RestoreError::File(
                "it has format 2, whose minibatches are consecutive steps of the rollout; now they are random ones: resume with the \
                 version that wrote it, or train anew"
                    .into(),
            ));
        }
        let mut compared = metadata.config.clone();
        if !self.sizes.several_choices() || own.config.ppo.algorithm == Algorithm::Happo {
            // Without effect.
            compared.ppo.ratio = own.config.ppo.ratio;
        }
        same_run(&metadata, &compared, &own)?;
        let parts = self.parts(metadata.iteration);
        let mut checked = Vec::new();
        for part in &parts {
            let name = &part.name;
            let view = file.tensor(name).map_err(|_| format!("`{name}` is missing"))?;
            if view.dtype() != part.dtype || view.data().len() as u64 != part.bytes {
                let (dtype, found) = (view.dtype(), view.data().len());
                return Err(RestoreError::File(format!(
                    "`{name}` has {found} bytes of {dtype:?}, expected {} of {:?}",
                    part.bytes, part.dtype
                )));
            }
            (part.check)(view.data()).map_err(|reason| format!("`{name}`: {reason}"))?;
            checked.push((part, view));
        }
        let mut restores = Vec::new();
        for (name, state) in self.host_states() {
            let view = file.tensor(&name).map_err(|_| format!("`{name}` is missing"))?;
            restores.push(state.load(view.data()).map_err(|error| format!("`{name}`: {error}"))?);
        }
        if metadata.adapter != own.adapter
            || metadata.kernel_config != own.kernel_config
            || metadata.micro_slots != own.micro_slots
        {
            tracing::warn!(
                saved = %metadata.adapter, here = %own.adapter,
                "the snapshot is from another adapter, other kernels or other micro-batches: results will differ in the last digits"
            );
        }
        for (part, view) in checked {
            self.gpu.write(&part.buffer, part.offset, view.data())?;
        }
        restores.into_iter().for_each(|restore| restore());
        Ok(metadata)
    }

    pub(in crate::mappo) fn between_iterations(&self) -> Result<()> {
        match self.submitted - self.collected {
            0 => Ok(()),
            pending => Err(Error::shape("iterations in flight", 0, pending)),
        }
    }
}

/// Cause of a failed restore: the file or the device.
enum RestoreError {
    File(String),
    Device(Error),
}

impl From<String> for RestoreError {
    fn from(reason: String) -> Self {
        Self::File(reason)
    }
}

impl From<Error> for RestoreError {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

/// Checks that a snapshot belongs to this run. `config` are its settings, except those without effect here.
fn same_run(saved: &SnapshotMetadata, config: &Config, here: &SnapshotMetadata) -> Result<(), String> {
    if saved.environment != here.environment {
        return Err(format!(
            "it is from another environment: `{}` in the file, `{}` here",
            saved.environment, here.environment
        ));
    }
    // With statistics that are given, the identity does not depend on the volumes. Older snapshots lack this.
    if saved.candles.is_some() && saved.candles != here.candles {
        let name = |candles: &Option<String>| candles.clone().unwrap_or_else(|| "none".into());
        return Err(format!(
            "it is from other candles: `{}` in the file, `{}` here",
            name(&saved.candles),
            name(&here.candles)
        ));
    }
    let (Ok(serde_json::Value::Object(file)), Ok(serde_json::Value::Object(own))) =
        (serde_json::to_value(config), serde_json::to_value(&here.config))
    else {
        return Err("the settings in the file cannot be compared".into());
    };
    // More iterations train further, and fewer are allowed unless a schedule depends on their number. Other limits on memory are
    // allowed because the plan below decides.
    let scheduled = here.config.optimizer.learning_rate_decay || here.config.ppo.entropy_end.is_some();
    let free = |key: &str| match key {
        "iterations" => !scheduled || here.config.ppo.iterations > saved.config.ppo.iterations,
        "memory_budget_mb" | "shrink_envs" => true,
        _ => false,
    };
    for (key, value) in own.iter().filter(|(key, _)| !free(key)) {
        if file.get(key) != Some(value) {
            let found = file.get(key).map_or("nothing".into(), ToString::to_string);
            return Err(format!("it is from other settings: `{key}` is {found} in the file, {value} here"));
        }
    }
    if saved.envs != here.envs {
        let (found, planned) = (saved.envs, here.envs);
        return Err(format!(
            "it has {found} environments, but the plan has {planned}: set `num_envs` or `memory_budget_mb`"
        ));
    }
    if saved.iteration > MAX_ITERATIONS {
        return Err(format!("iteration is {}, expected 0 to {MAX_ITERATIONS}", saved.iteration));
    }
    Ok(())
}
