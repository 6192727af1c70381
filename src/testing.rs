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
        file.and_then(|mut file| writeln!(file, "{}: {reason}", thread.name().unwrap_or("a test")))
            .expect("the file of skipped checks can be written");
    }
}

/// Tests that `#[repr(C)]` structures have the layout of their WGSL counterparts:
/// `gae::Gae { steps, agents } = "Gae" in "ppo/gae";`, structure and fields, name in WGSL, kernel.
macro_rules! same_layout {
    ($($module:ident::$type:ident { $($field:ident),+ $(,)? } = $wgsl:literal in $kernel:literal;)+) => {
        #[test]
        fn structures_have_the_layout_of_their_counterparts_in_wgsl() {
            $({
                use super::$module::$type as Structure;
                // Does not compile if a field of the structure is missing in the list.
                let Structure { $($field: _),+ } = <Structure as bytemuck::Zeroable>::zeroed();
                let fields = [$((stringify!($field), std::mem::offset_of!(Structure, $field))),+];
                crate::testing::compare_layout($kernel, $wgsl, size_of::<Structure>(), &fields);
            })+
        }
    };
}
pub(crate) use same_layout;

/// Compares names, offsets and size with those of structure `wgsl` of a kernel. Fields whose names begin with `pad` are padding.
pub fn compare_layout(kernel: &str, wgsl: &str, size: usize, fields: &[(&str, usize)]) {
    let source = if kernel == "indicators/panel" {
        let sources = crate::indicators::sources(Class::Hardware).unwrap();
        sources.into_iter().next().expect("indicators have kernels").1.text
    } else {
        let kernels = crate::kernels(Class::Hardware);
        let (shader, variant) = kernels.iter().find(|(shader, _)| shader.name == kernel).expect(kernel);
        crate::gpu::compose(shader, variant).unwrap()
    };
    let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| panic!("{kernel}: {error}"));
    // Structures of imported modules have the module's path before their name.
    let imported = format!("_{wgsl}");
    let named = |name: &str| name == wgsl || name.ends_with(&imported);
    let (_, structure) = module
        .types
        .iter()
        .find(|(_, it)| it.name.as_deref().is_some_and(named))
        .unwrap_or_else(|| panic!("{kernel} has no structure {wgsl}"));
    let naga::TypeInner::Struct { members, span } = &structure.inner else {
        panic!("{wgsl} of {kernel} is no structure");
    };
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize))
        .filter(|(name, _)| !name.starts_with("pad"))
        .collect();
    let expected: Vec<_> = fields.iter().copied().filter(|(name, _)| !name.starts_with("pad")).collect();
    assert_eq!(found, expected, "{wgsl} of {kernel}: fields and offsets in WGSL, in Rust");
    assert_eq!(*span as usize, size, "{wgsl} of {kernel}: size in WGSL, in Rust");
}

/// Every `#[repr(C)]` structure below `src/` is compared in the `layout_tests.rs` of its family.
#[test]
fn every_device_structure_is_compared() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut count = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for after in source.split("\n#[repr(C)]\n").skip(1) {
            let line = after.lines().find(|line| line.contains("struct ")).expect("a structure");
            let name = line.split("struct ").nth(1).unwrap().split([' ', '<', '(']).next().unwrap();
            let family = path.strip_prefix(&root).unwrap().iter().next().unwrap();
            let tests = root.join(family).join("layout_tests.rs");
            let tests = std::fs::read_to_string(&tests).unwrap_or_default();
            // The structure's module is the file, or the folder above it.
            let module = path.with_extension("");
            let compared = module
                .components()
                .any(|part| tests.contains(&format!("{}::{name} {{", part.as_os_str().display())));
            assert!(compared, "{name} of {} is not compared in {family:?}", path.display());
            count += 1;
        }
    }
    assert!(count > 0, "no structures found below {}", root.display());
}
