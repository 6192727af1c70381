//! Measuring the forms of the kernels on the adapter at hand, and remembering which was best.
//!
//! Opt-in: [`KernelConfig::new`] is good without it. The file is JSON, an entry for every adapter, driver and shape of networks;
//! entries of another version of this library are measured again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cooperative::Cooperative;
use super::layout::Layout;
use super::precision::{KernelConfig, Precision};
use super::synthetic_pass::SyntheticPass;
use crate::files::write_atomically;
use crate::gpu::{Class, Gpu, Profiler};
use crate::{Error, Result};

/// Runs of a pass, of which the fastest counts.
const RUNS: usize = 5;

/// Quads of rows of a synthetic pass at most: enough to fill a large GPU.
const MOST_QUADS: u32 = 1 << 14;

/// What one form came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The form.
    pub kernel_config: KernelConfig,
    /// Time of the forward and backward pass together, GPU time where the adapter tells it; `None` if the form failed or
    /// came to other results.
    pub time: Option<Duration>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cache {
    entries: BTreeMap<String, KernelConfig>,
}

/// The best forms known, kept in a file.
#[derive(Debug)]
pub struct Autotune {
    path: PathBuf,
    cache: Cache,
}

impl Autotune {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is none of ours; it is not touched then.
    pub fn open(path: &Path) -> Result<Self> {
        let cache = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Error::Data(format!("{}: not a file of measured kernels: {error}", path.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Cache::default(),
            Err(source) => return Err(Error::Io { path: path.into(), source }),
        };
        Ok(Self { path: path.into(), cache })
    }

    /// The best form for these networks with `quads` quads of environments and micro-batches of `slots` slots: from the
    /// file, or measured now and written there.
    ///
    /// # Errors
    /// If the shipped form fails, or the file cannot be written.
    pub fn best(
        &mut self,
        gpu: &Gpu,
        precision: Precision,
        layout: &Layout,
        quads: u32,
        slots: u32,
    ) -> Result<KernelConfig> {
        let key = key(gpu, precision, layout, quads, slots);
        let shipped = KernelConfig::new(gpu, precision, layout, quads)?;
        // The file is the user's: what is no form of ours for these networks is measured again.
        let known = self.cache.entries.get(&key);
        if let Some(known) = known.filter(|known| candidates(gpu, shipped, layout, quads).contains(known)) {
            return Ok(*known);
        }
        let measured = measure(gpu, precision, layout, quads, slots)?;
        let fastest = measured.iter().filter(|one| one.time.is_some()).min_by_key(|one| one.time);
        let best = fastest.map_or(shipped, |one| one.kernel_config);
        // Another run may have written meanwhile.
        self.cache = Self::open(&self.path)?.cache;
        self.cache.entries.insert(key, best);
        let text = serde_json::to_vec_pretty(&self.cache)
            .map_err(|error| Error::Data(format!("{}: {error}", self.path.display())))?;
        write_atomically(&self.path, &text)?;
        Ok(best)
    }
}

fn key(gpu: &Gpu, precision: Precision, layout: &Layout, quads: u32, slots: u32) -> String {
    let info = gpu.info();
    let shape = &layout.shape;
    let features = gpu.device().features();
    format!(
        "phalanx {} | {} | {:?} {} {} | f16 {} subgroups {} | {precision:?} {shape:?} | {quads} quads, {slots} slots",
        env!("CARGO_PKG_VERSION"),
        info.name,
        info.backend,
        info.driver,
        info.driver_info,
        features.contains(wgpu::Features::SHADER_F16),
        features.contains(wgpu::Features::SUBGROUP),
    )
}

/// Forms worth measuring, the shipped one first.
fn candidates(gpu: &Gpu, shipped: KernelConfig, layout: &Layout, quads: u32) -> Vec<KernelConfig> {
    let mut all = vec![shipped];
    let plain = KernelConfig::plain(gpu.class(), shipped.storage);
    if shipped.storage.precision() == Precision::F16 {
        // Either shape the adapter lists, on blocks of 64 rows and of 128.
        for matrices in Cooperative::listed(gpu) {
            let one = KernelConfig::cooperative(gpu.class(), matrices);
            all.extend([one, KernelConfig { workgroup: 2 * one.workgroup, ..one }]);
        }
        all.retain(|one| one.suits(layout, quads));
    }
    match gpu.class() {
        Class::Hardware => {
            for workgroup in [32, 64, 128, 256] {
                all.extend([8, 16, 32].map(|columns| KernelConfig { workgroup, columns, ..plain }));
            }
            // More splits take as much memory as parameters each.
            let affordable = if layout.params < 1 << 18 { 256 } else { 32 };
            all.extend([16, affordable].map(|splits| KernelConfig { splits, ..plain }));
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
    unique
}

/// Measures every form worth it; the shipped one is the first, and the one the others' results are compared with.
///
/// # Errors
/// If the shipped form fails; of the others that is only noted.
pub fn measure(
    gpu: &Gpu,
    precision: Precision,
    layout: &Layout,
    quads: u32,
    slots: u32,
) -> Result<Vec<Measured>> {
    let shipped = KernelConfig::new(gpu, precision, layout, quads)?;
    let slot = u64::from(quads) * u64::from(layout.shape.agents);
    let slots = slots.min((u64::from(MOST_QUADS) / slot.max(1)) as u32).max(1);
    let profiler = Profiler::new(gpu)?;
    let tolerance = if precision == Precision::F32 { 1e-4 } else { 2e-2 };
    let mut expected: Option<Vec<f32>> = None;
    let mut measured = Vec::new();
    for kernel_config in candidates(gpu, shipped, layout, quads) {
        let result = attempt(gpu, &profiler, layout, &kernel_config, quads, slots);
        let time = match (result, &expected) {
            (Err(error), None) => return Err(error),
            (Ok((time, sums)), None) => {
                expected = Some(sums);
                Some(time)
            }
            (Ok((time, sums)), Some(expected)) if alike(&sums, expected, tolerance) => Some(time),
            (Ok(_), Some(_)) => {
                tracing::warn!(?kernel_config, "this form comes to other results on this adapter");
                None
            }
            (Err(error), Some(_)) => {
                tracing::warn!(?kernel_config, %error, "this form does not run on this adapter");
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
        return Err(Error::shape("workgroup", "one of the adapter's limits", kernel_config.workgroup));
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

/// Whether two sets of sums differ by rounding alone.
pub(super) fn alike(a: &[f32], b: &[f32], tolerance: f64) -> bool {
    let scale = b.iter().fold(0f64, |m, x| m.max(f64::from(*x).abs()));
    let apart = a.iter().zip(b).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - f64::from(*b)).abs()));
    a.len() == b.len() && scale > 0.0 && apart <= tolerance * scale && a.iter().all(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Shape;

    fn layout() -> Layout {
        Layout::new(&Shape { agents: 2, obs_dim: 7, actions: 3, hidden: vec![40], ..Shape::default() })
            .unwrap()
    }

    #[test]
    fn all_forms_agree_and_the_best_is_remembered() {
        let gpu = crate::testing::gpu();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        for precision in [Precision::F32, Precision::F16] {
            let measured = measure(&gpu, precision, &layout(), 4, 3).unwrap();
            assert!(measured.len() >= 4);
            assert!(measured.iter().all(|one| one.time.is_some()), "{measured:?}");
            let best = Autotune::open(&path).unwrap().best(&gpu, precision, &layout(), 4, 3).unwrap();
            assert!(measured.iter().any(|one| one.kernel_config == best));
            // The second time it comes from the file: another of the forms, written there, is the one that is given.
            let other = measured.iter().map(|one| one.kernel_config).find(|one| *one != best).unwrap();
            let mut autotune = Autotune::open(&path).unwrap();
            let key = key(&gpu, precision, &layout(), 4, 3);
            assert_eq!(autotune.cache.entries[&key], best);
            autotune.cache.entries.insert(key.clone(), other);
            assert_eq!(autotune.best(&gpu, precision, &layout(), 4, 3).unwrap(), other);
            // What is none of the forms is measured again.
            autotune.cache.entries.insert(key, KernelConfig { columns: 0, ..best });
            let again = autotune.best(&gpu, precision, &layout(), 4, 3).unwrap();
            assert!(measured.iter().any(|one| one.kernel_config == again));
        }
    }

    #[test]
    fn a_form_that_fails_or_errs_is_not_taken() {
        assert!(alike(&[1.0, 2.0], &[1.00001, 2.0], 1e-4));
        assert!(!alike(&[1.0, 2.1], &[1.0, 2.0], 1e-4));
        assert!(!alike(&[1.0, f32::NAN], &[1.0, 2.0], 1e-4));
        assert!(!alike(&[0.0, 0.0], &[0.0, 0.0], 1e-4), "nothing was computed");
        let gpu = crate::testing::gpu();
        let profiler = Profiler::new(&gpu).unwrap();
        let giant = KernelConfig {
            workgroup: 1 << 20,
            ..KernelConfig::new(&gpu, Precision::F32, &layout(), 4).unwrap()
        };
        assert!(attempt(&gpu, &profiler, &layout(), &giant, 4, 3).is_err());
    }

    #[test]
    fn a_file_that_is_none_of_ours_stays() {
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
