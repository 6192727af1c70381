//! The device that all unit tests share, so that each kernel is compiled once a process.

use std::sync::OnceLock;

use crate::gpu::{Class, Gpu, GpuOptions};

fn shared() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let options = GpuOptions { checked: true, experimental: true, ..GpuOptions::default() };
        Gpu::open(&options).expect("tests need an adapter: see scripts/ensure-vulkan")
    })
}

/// The shared device, with kernels that check their bounds.
pub fn gpu() -> Gpu {
    shared().with_checks(true)
}

/// The shared device with the kernels of software rasterisers, and with those of GPUs.
pub fn both_classes() -> [Gpu; 2] {
    [Class::Software, Class::Hardware].map(|class| gpu().with_class(class))
}

/// Says that a check needs what the adapter lacks. `make test` counts these lines' copies in the file that
/// `PHALANX_SKIPPED` names.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
    if let Some(path) = std::env::var_os("PHALANX_SKIPPED") {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let thread = std::thread::current();
        file.and_then(|mut file| writeln!(file, "{}: {reason}", thread.name().unwrap_or("a test")))
            .expect("the file of skipped checks can be written");
    }
}
