//! The compiled kernels of a device. Trainers, evaluations and policies on one device share them, so that each is compiled
//! once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Access;
use crate::files::{create_folders, remove_stale, write_atomically};
use crate::{Error, Result};

/// A pipeline and the layout of its bindings.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Everything that a compiled kernel depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// WGSL after composition.
    pub(super) source: String,
    /// Accesses at their `@binding` numbers.
    pub(super) access: Vec<(u32, Access)>,
    /// Whether it is compiled with bounds checks.
    pub(super) checked: bool,
}

type Slot = Arc<Mutex<Option<Compiled>>>;

/// The kernels of one device.
pub(super) struct KernelCache {
    slots: Mutex<HashMap<Key, Slot>>,
    compiled: AtomicU64,
    reused: AtomicU64,
    disk: Option<Disk>,
}

struct Disk {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    saved: AtomicU64,
}

/// The first bytes of a file. The CRC-32 of the rest follows.
const MAGIC: [u8; 8] = *b"phalanxP";

impl KernelCache {
    /// An empty cache. With a folder, and a device with [`wgpu::Features::PIPELINE_CACHE`], the driver starts from the pipelines
    /// of earlier processes.
    pub(super) fn new(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: Option<&Path>) -> Self {
        let disk = folder.and_then(|folder| Disk::open(device, info, folder));
        Self { slots: Mutex::default(), compiled: AtomicU64::new(0), reused: AtomicU64::new(0), disk }
    }

    /// The kernel of `key`, from the cache or from `compile`. Threads that request the same kernel compile it once; threads that
    /// request different kernels do not wait for each other. Errors are not cached.
    pub(super) fn get(
        &self,
        key: Key,
        compile: impl FnOnce(&Key, Option<&wgpu::PipelineCache>) -> Result<Compiled>,
    ) -> Result<Compiled> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(key.clone()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = slot.as_ref() {
            self.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(compiled.clone());
        }
        let compiled = compile(&key, self.disk.as_ref().map(|disk| &disk.cache))?;
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(slot.insert(compiled).clone())
    }

    pub(super) fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    pub(super) fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Writes the driver's data to disk if kernels were compiled since the last call.
    pub(super) fn save(&self) -> Result<()> {
        let (Some(disk), compiled) = (&self.disk, self.compiled()) else {
            return Ok(());
        };
        if disk.saved.load(Ordering::Relaxed) == compiled {
            return Ok(());
        }
        let Some(data) = disk.cache.get_data() else {
            return Ok(());
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(crc32fast::hash(&data).to_le_bytes());
        bytes.extend(data);
        write_atomically(&disk.path, &bytes)?;
        disk.saved.store(compiled, Ordering::Relaxed);
        Ok(())
    }
}

impl Disk {
    fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(info)?;
        if let Err(error) = create_folders(folder).and_then(|()| remove_stale(folder)) {
            tracing::warn!(folder = %folder.display(), %error, "compiled kernels are not kept on disk: could not create the folder");
            return None;
        }
        let path = folder.join(name);
        let data = match std::fs::read(&path) {
            Ok(bytes) => match payload(&bytes) {
                Some(data) => Some(data.to_vec()),
                None => {
                    tracing::warn!(path = %path.display(), "the file of compiled kernels is corrupt: kernels are compiled anew");
                    None
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "could not read the compiled kernels: they are compiled anew");
                None
            }
        };
        // SAFETY: the data must come from `get_data` of such a cache. The file lies in a folder that the caller names as this
        // crate's own, begins with our magic number, and its checksum rules out truncated and damaged data. wgpu compares
        // vendor, device, driver version and its own format in the data's header, and with `fallback` starts empty where they
        // differ.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("phalanx"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        Some(Self { cache, path, saved: AtomicU64::new(0) })
    }
}

/// The driver's data in the bytes of a file, if the magic number and the checksum are right.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (checksum, data) = rest.split_first_chunk::<4>()?;
    (crc32fast::hash(data) == u32::from_le_bytes(*checksum)).then_some(data)
}

impl Drop for KernelCache {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "could not write the compiled kernels to disk");
        }
    }
}

/// One job of [`in_parallel`].
pub type Job<'a> = Box<dyn Fn() -> Result<()> + Send + Sync + 'a>;

/// Runs jobs on as many threads as the machine has cores, to compile kernels in parallel before they are needed.
///
/// # Errors
/// The error of the first job that failed, in the order of `jobs`.
pub fn in_parallel(jobs: &[Job<'_>]) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    if threads <= 1 {
        // A browser has no threads to spawn.
        return jobs.iter().try_for_each(|job| job());
    }
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
    let work = || {
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, job))
        } {
            if let Err(error) = job() {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // If the system gives no more threads, fewer do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.into_iter().min_by_key(|(index, _)| *index).map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions, Kernel, Shader, Variant};

    const ONE: Shader = Shader::new(
        "test/one",
        "import package::constants::WG;\n@group(0) @binding(0) var<storage, read_write> b: array<u32>;\n@compute @workgroup_size(WG) fn main() { b[0] = WG; }",
    );

    fn one(gpu: &Gpu, workgroup: u32) -> Result<()> {
        Kernel::new(gpu, &ONE, Variant::new(workgroup), &[Access::Write], 0).map(|_| ())
    }

    #[test]
    fn a_kernel_is_compiled_once_by_any_number_of_threads() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let jobs: Vec<Job<'_>> = (0..12u32)
            .map(|i| -> Job<'_> {
                let gpu = &gpu;
                Box::new(move || one(gpu, 1 + i % 3))
            })
            .collect();
        in_parallel(&jobs).unwrap();
        assert_eq!((gpu.kernels_compiled(), gpu.kernels_reused()), (3, 9));
        one(&gpu.clone(), 2).unwrap();
        assert_eq!((gpu.kernels_compiled(), gpu.kernels_reused()), (3, 10));
        let hardware = gpu.with_class(crate::gpu::Class::Hardware);
        one(&hardware, 2).unwrap();
        assert_eq!(gpu.kernels_compiled(), 3, "handles of another class share the cache");
        Kernel::trusted(&gpu, &ONE, Variant::new(2), &[Access::Write], 0).unwrap();
        assert_eq!(gpu.kernels_compiled(), 4, "without checks it is another kernel");
    }

    #[test]
    fn an_error_is_told_and_not_kept() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let broken = Shader::new("test/broken", "@compute @workgroup_size(1) fn main() { nothing(); }");
        let compile = || Kernel::new(&gpu, &broken, Variant::new(1), &[], 0).map(|_| ());
        for _ in 0..2 {
            assert!(compile().unwrap_err().to_string().contains("test/broken"));
        }
        let jobs: Vec<Job<'_>> = vec![Box::new(|| one(&gpu, 1)), Box::new(compile)];
        assert!(in_parallel(&jobs).unwrap_err().to_string().contains("test/broken"));
        assert_eq!(gpu.kernels_compiled(), 1);
    }

    #[test]
    fn a_damaged_file_is_not_used() {
        let whole = [&MAGIC[..], &crc32fast::hash(b"data").to_le_bytes(), b"data"].concat();
        assert_eq!(payload(&whole), Some(&b"data"[..]));
        for damaged in [&whole[..9], &whole[..15], &whole[1..], b""] {
            assert_eq!(payload(damaged), None);
        }
    }

    #[test]
    fn pipelines_survive_on_the_disk_where_the_driver_can() {
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { cache_dir: Some(folder.path().join("kernels")), ..GpuOptions::default() };
        let gpu = Gpu::open(&options).unwrap();
        if !gpu.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            println!("skipped: the adapter has no pipeline cache");
            return;
        }
        one(&gpu, 4).unwrap();
        gpu.save_kernels().unwrap();
        let files: Vec<_> =
            std::fs::read_dir(folder.path().join("kernels")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert!(payload(&std::fs::read(&files[0]).unwrap()).is_some());
        drop(gpu);
        // Whatever the file holds, the next process opens.
        for bytes in [std::fs::read(&files[0]).unwrap(), b"rubbish".to_vec()] {
            std::fs::write(&files[0], bytes).unwrap();
            one(&Gpu::open(&options).unwrap(), 4).unwrap();
        }
    }
}
