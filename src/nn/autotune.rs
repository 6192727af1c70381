//! Measures kernel configurations on an adapter and remembers the fastest in a file.
//!
//! Opt-in: [`KernelConfig::new`] chooses well without measurements. The file is JSON with an entry for every adapter, driver,
//! class of kernels ([`Class`]) and shape of networks; entries of another version of this library are measured again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::block::Blocks;
use super::cooperative::Cooperative;
use super::kernel_config::KernelConfig;
use super::layout::Layout;
use super::precision::Precision;
use super::synthetic_pass::{SyntheticPass, agree};
use crate::bounded;
use crate::files::{remove_stale_beside, write_atomically};
use crate::gpu::{Class, Gpu, Profiler};
use crate::{Error, Result};

/// Timed runs of a pass; the fastest counts.
const RUNS: usize = 5;

/// Most bytes of the file: about 30,000 entries.
const MOST_BYTES: u64 = 16 << 20;

/// Most quads of rows of a synthetic pass: enough to fill a large GPU.
const MOST_QUADS: u32 = 1 << 14;

/// The measurement of one configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The configuration.
    pub kernel_config: KernelConfig,
    /// Time of the forward and backward pass together, GPU time where the adapter reports it; `None` if the configuration
    /// failed or its results differ from the default's.
    pub time: Option<Duration>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cache {
    entries: BTreeMap<String, KernelConfig>,
}

/// The fastest configurations known, kept in a file.
#[derive(Debug)]
pub struct Autotune {
    path: PathBuf,
    cache: Cache,
}

impl Autotune {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Data`] if it is not a file of this type, which is left as it is.
    pub fn open(path: &Path) -> Result<Self> {
        let cache = match bounded::read(path, MOST_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Error::Data(format!("{}: not a file of measured kernels: {error}", path.display()))
            })?,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Cache::default()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.into(), cache })
    }

    /// The configuration with blocks of rows where it is the default, which is not measured; otherwise the fastest for these networks
    /// with `quads` quads of environments and micro-batches of `slots` slots, from the file, or measured now and written to it.
    ///
    /// # Errors
    /// If the default configuration fails, or the file cannot be written.
    pub fn best(
        &mut self,
        gpu: &Gpu,
        precision: Precision,
        layout: &Layout,
        quads: u32,
        slots: u32,
    ) -> Result<KernelConfig> {
        let candidates = candidates(gpu, precision, layout, quads)?;
        // A synthetic pass has no losses, and with blocks the losses and all passes are one kernel.
        if candidates[0].blocks.is_some() {
            return Ok(candidates[0]);
        }
        self.best_of(&candidates, gpu, layout, quads, slots)
    }

    /// The fastest of `candidates`, whose first is the default.
    fn best_of(
        &mut self,
        candidates: &[KernelConfig],
        gpu: &Gpu,
        layout: &Layout,
        quads: u32,
        slots: u32,
    ) -> Result<KernelConfig> {
        let key = key(gpu, candidates[0].storage.precision(), layout, quads, slots);
        // The user may have edited the file: an entry that is not a candidate for these networks is measured again.
        let known = self.cache.entries.get(&key);
        if let Some(known) = known.filter(|known| candidates.contains(known)) {
            return Ok(*known);
        }
        let measured = measure(candidates, gpu, layout, quads, slots)?;
        let fastest = measured.iter().filter(|one| one.time.is_some()).min_by_key(|one| one.time);
        let best = fastest.map_or(candidates[0], |one| one.kernel_config);
        // Another process may have written in the meantime.
        self.cache = Self::open(&self.path)?.cache;
        self.cache.entries.insert(key, best);
        let text = serde_json::to_vec_pretty(&self.cache)
            .map_err(|error| Error::Data(format!("{}: {error}", self.path.display())))?;
        // A process that was killed while it wrote leaves a temporary file.
        remove_stale_beside(&self.path)?;
        write_atomically(&self.path, &text)?;
        Ok(best)
    }
}

fn key(gpu: &Gpu, precision: Precision, layout: &Layout, quads: u32, slots: u32) -> String {
    let info = gpu.info();
    let shape = &layout.shape;
    let features = gpu.device().features();
    format!(
        "phalanx {} | {} | {:?} kernels | {:?} {} {} | f16 {} subgroups {} | {precision:?} {shape:?} | {quads} quads, {slots} slots",
        env!("CARGO_PKG_VERSION"),
        info.name,
        gpu.class(),
        info.backend,
        info.driver,
        info.driver_info,
        features.contains(wgpu::Features::SHADER_F16),
        features.contains(wgpu::Features::SUBGROUP),
    )
}

/// Configurations worth measuring, the default first.
///
/// # Errors
/// If there is no default for this adapter and these networks.
fn candidates(gpu: &Gpu, precision: Precision, layout: &Layout, quads: u32) -> Result<Vec<KernelConfig>> {
    let shipped = KernelConfig::new(gpu, precision, layout, quads)?;
    let mut all = vec![shipped];
    let plain = KernelConfig::plain(gpu.class(), shipped.storage);
    if shipped.storage.precision() == Precision::F16 {
        // All listed sizes of matrices, on blocks of 64 and of 128 quads of rows.
        for matrices in Cooperative::listed(gpu) {
            let one = KernelConfig::cooperative(gpu.class(), matrices);
            all.extend([one, KernelConfig { workgroup: 2 * one.workgroup, ..one }]);
        }
        all.retain(|one| one.suits(layout, quads));
    }
    match gpu.class() {
        Class::Hardware => {
            let memory = gpu.device().limits().max_compute_workgroup_storage_size;
            all.extend(Blocks::within(memory).map(|blocks| KernelConfig { stream: Some(blocks), ..plain }));
            all.retain(|one| one.suits(layout, quads));
            for workgroup in [32, 64, 128, 256] {
                all.extend([8, 16, 32].map(|columns| KernelConfig { workgroup, columns, ..plain }));
            }
            // Each split takes as much memory as the parameters.
            let affordable = if layout.params < 1 << 18 { 256 } else { 32 };
            all.extend([16, affordable].map(|splits| KernelConfig { splits, ..shipped }));
        }
        Class::Software => {
            all.extend([16, 32].map(|columns| KernelConfig { columns, ..plain }));
            all.extend([2, 4].map(|splits| KernelConfig { splits, ..shipped }));
        }
    }
    let mut unique: Vec<KernelConfig> = Vec::new();
    for one in all.into_iter().map(|one| one.for_layout(gpu.class(), layout)) {
        if !unique.contains(&one) {
            unique.push(one);
        }
    }
    Ok(unique)
}

/// Measures `candidates`. The first is the default; the results of the others are compared with its.
///
/// # Errors
/// If the default fails; the failure of another candidate is logged.
fn measure(
    candidates: &[KernelConfig],
    gpu: &Gpu,
    layout: &Layout,
    quads: u32,
    slots: u32,
) -> Result<Vec<Measured>> {
    let slot = u64::from(quads) * u64::from(layout.shape.agents);
    let slots = slots.min((u64::from(MOST_QUADS) / slot.max(1)) as u32).max(1);
    let profiler = Profiler::new(gpu)?;
    let mut expected: Option<Vec<f32>> = None;
    let mut measured = Vec::new();
    for kernel_config in candidates.iter().copied() {
        let tolerance = if kernel_config.storage.precision() == Precision::F32 { 1e-4 } else { 2e-2 };
        let result = attempt(gpu, &profiler, layout, &kernel_config, quads, slots);
        let time = match (result, &expected) {
            (Err(error), None) => return Err(error),
            (Ok((time, sums)), None) => {
                expected = Some(sums);
                Some(time)
            }
            (Ok((time, sums)), Some(expected)) if agree(&sums, expected, tolerance) => Some(time),
            (Ok(_), Some(_)) => {
                tracing::warn!(
                    ?kernel_config,
                    "configuration not used: its results differ from the default's on this adapter"
                );
                None
            }
            (Err(error), Some(_)) => {
                tracing::warn!(?kernel_config, %error, "configuration not used: it fails on this adapter");
                None
            }
        };
        measured.push(Measured { kernel_config, time });
    }
    Ok(measured)
}

fn attempt(
    gpu: &Gpu,
    profiler: &Profiler,
    layout: &Layout,
    kernel_config: &KernelConfig,
    quads: u32,
    slots: u32,
) -> Result<(Duration, Vec<f32>)> {
    let limits = gpu.device().limits();
    if kernel_config.workgroup
        > limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)
    {
        return Err(Error::shape("workgroup", "within the adapter's limits", kernel_config.workgroup));
    }
    let pass = SyntheticPass::new(gpu, layout, kernel_config, quads, slots)?;
    let sums = pass.sums()?;
    let mut time = Duration::ZERO;
    for pass in [&pass.forward, &pass.backward] {
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let timing = profiler.time(pass)?;
            best = best.min(timing.gpu.unwrap_or(timing.wall));
        }
        time += best;
    }
    Ok((time, sums))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Shape;

    fn layout() -> Layout {
        Layout::new(&Shape { agents: 2, obs_dim: 7, actions: 3, hidden: vec![40], ..Shape::default() })
            .unwrap()
    }

    /// The default and the extremes of the candidates, or with `PHALANX_CHECKED`, as in `make test-nightly`, all of them: each
    /// takes seconds to compile.
    fn tested(gpu: &Gpu, precision: Precision) -> Vec<KernelConfig> {
        let all = candidates(gpu, precision, &layout(), 4).unwrap();
        assert!(all.len() >= 4, "{all:?}");
        if std::env::var_os("PHALANX_CHECKED").is_some() {
            return all;
        }
        let size = |one: &&KernelConfig| (one.workgroup * one.columns, one.splits);
        let (least, most) = (all.iter().min_by_key(size), all.iter().max_by_key(size));
        let mut few = vec![all[0]];
        few.extend([least, most].into_iter().flatten().filter(|one| **one != all[0]));
        few
    }

    #[test]
    fn configurations_agree_and_the_best_is_remembered() {
        let [software, hardware] = crate::nn::testing::both_classes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let stale = folder.path().join("kernels.json.0123.phalanx-tmp");
        std::fs::write(&stale, "a part").unwrap();
        let mut classes = vec![(&software, Precision::F32), (&hardware, Precision::F32)];
        // The candidates of f16 are others only where there are matrices.
        if !Cooperative::listed(&hardware).is_empty() {
            classes.push((&hardware, Precision::F16));
        }
        if std::env::var_os("PHALANX_CHECKED").is_some() {
            classes.push((&software, Precision::F16));
        }
        for (gpu, precision) in classes.iter().copied() {
            let (layout, tested) = (layout(), tested(gpu, precision));
            let measured = measure(&tested, gpu, &layout, 4, 3).unwrap();
            assert!(measured.len() >= 2);
            assert!(measured.iter().all(|one| one.time.is_some()), "{measured:?}");
            let best = Autotune::open(&path).unwrap().best_of(&tested, gpu, &layout, 4, 3).unwrap();
            assert!(tested.contains(&best));
            // The second time it comes from the file: another candidate, written there, is returned.
            let other = *tested.iter().find(|one| **one != best).unwrap();
            let mut autotune = Autotune::open(&path).unwrap();
            let key = key(gpu, precision, &layout, 4, 3);
            assert_eq!(autotune.cache.entries[&key], best);
            autotune.cache.entries.insert(key.clone(), other);
            assert_eq!(autotune.best_of(&tested, gpu, &layout, 4, 3).unwrap(), other);
            // Blocks of rows are not measured against others, whatever the file says.
            let expected = if tested[0].blocks.is_some() { tested[0] } else { other };
            assert_eq!(autotune.best(gpu, precision, &layout, 4, 3).unwrap(), expected);
            // An entry that is not a candidate is measured again.
            autotune.cache.entries.insert(key, KernelConfig { columns: 0, ..best });
            assert!(tested.contains(&autotune.best_of(&tested, gpu, &layout, 4, 3).unwrap()));
        }
        assert!(!stale.exists(), "left behind by a process that was killed");
        let entries = Autotune::open(&path).unwrap().cache.entries;
        assert_eq!(entries.len(), classes.len(), "an entry for each class and precision: {entries:?}");
    }

    #[test]
    fn classes_of_kernels_have_entries_of_their_own() {
        let keys = crate::nn::testing::both_classes().map(|gpu| key(&gpu, Precision::F32, &layout(), 4, 3));
        assert!(keys[0].contains("Software kernels") && keys[1].contains("Hardware kernels"), "{keys:?}");
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn a_configuration_beyond_the_limits_fails() {
        let gpu = crate::testing::unchecked_gpu();
        let profiler = Profiler::new(&gpu).unwrap();
        let giant = KernelConfig {
            workgroup: 1 << 20,
            ..KernelConfig::new(&gpu, Precision::F32, &layout(), 4).unwrap()
        };
        assert!(attempt(&gpu, &profiler, &layout(), &giant, 4, 3).is_err());
    }

    #[test]
    fn a_file_of_another_type_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        std::fs::write(&path, "my diary").unwrap();
        let error = Autotune::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("kernels.json") && error.contains("not a file of measured kernels"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my diary");
    }
}
