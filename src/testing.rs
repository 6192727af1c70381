//! The devices that tests share, so that a kernel is compiled once for many tests, and the count of skipped checks.
//! Unit tests and `tests/suite` both compile this file. With `PHALANX_OTHER_CLASS` set the tests run the kernels of the
//! class that the adapter does not belong to.

use std::cell::OnceCell;
use std::sync::{Mutex, PoisonError};

use crate::gpu::{Class, Gpu, GpuOptions};

/// The shared devices, each with the number of threads that use it. A device translates one kernel at a time on software
/// rasterisers: tests that run side by side get one each.
static DEVICES: Mutex<Vec<(Gpu, usize)>> = Mutex::new(Vec::new());

/// A thread's share of a device, given back when the thread ends.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let idle = devices.iter().any(|(_, users)| *users == 0);
        if !idle && devices.len() < cores {
            let options = GpuOptions { experimental: true, ..GpuOptions::default() };
            let gpu = Gpu::open(&options).expect("tests need an adapter: see scripts/ensure-vulkan");
            devices.push((gpu, 0));
        }
        let (index, device) =
            devices.iter_mut().enumerate().min_by_key(|(_, (_, users))| *users).expect("one was opened");
        device.1 += 1;
        Self(index)
    }

    fn gpu(&self) -> Gpu {
        DEVICES.lock().unwrap_or_else(PoisonError::into_inner)[self.0].0.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        DEVICES.lock().unwrap_or_else(PoisonError::into_inner)[self.0].1 -= 1;
    }
}

fn shared() -> Gpu {
    thread_local!(static LEASE: OnceCell<Lease> = const { OnceCell::new() });
    let gpu = LEASE.with(|lease| lease.get_or_init(Lease::take).gpu());
    if std::env::var_os("PHALANX_OTHER_CLASS").is_none() {
        return gpu;
    }
    gpu.with_class(match gpu.class() {
        Class::Software => Class::Hardware,
        Class::Hardware => Class::Software,
    })
}

/// The shared device, with kernels that check their bounds.
pub fn gpu() -> Gpu {
    shared().with_checks(true)
}

/// The shared device, with kernels as users run them. Networks compile three times as long with checks, which make the
/// indices of their register tiles opaque to the compiler. `make test-nightly` sets `PHALANX_CHECKED`, which turns
/// the checks on here as well.
pub fn unchecked_gpu() -> Gpu {
    shared().with_checks(std::env::var_os("PHALANX_CHECKED").is_some())
}

/// [`gpu`] with the kernels of software rasterisers, and with those of GPUs.
pub fn both_classes() -> [Gpu; 2] {
    [Class::Software, Class::Hardware].map(|class| gpu().with_class(class))
}

/// Says that a check needs what the adapter lacks, and appends a line to the file that `PHALANX_SKIPPED` names:
/// `make test` counts them.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
    if let Some(path) = std::env::var_os("PHALANX_SKIPPED") {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let thread = std::thread::current();
        // In one write, because several processes append to the file.
        let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file of skipped checks can be written");
    }
}
