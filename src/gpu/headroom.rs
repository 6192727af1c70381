//! The memory that limits on this process leave, which software rasterisers do not survive to run out of.
//!
//! Mesa's llvmpipe (22.3, LLVM 15) and the C library under it end the process with SIGSEGV or abort when they get no memory while
//! they load, create a device or compile a kernel. Of `ulimit -v` (address space) and `ulimit -d` (data), which Linux enforces, the
//! rest is compared with what a training took, in the numbers of threads of llvmpipe (`LP_NUM_THREADS`) on two cores:
//!
//! | threads | address space in all | of it once the device is known | data |
//! |---|---|---|---|
//! | 1 | 761 MB | 521 MB | 125 MB |
//! | 2 | 849 MB | 609 MB | 140 MB |
//! | 4 | 1203 MB | 963 MB | 175 MB |
//! | 8 | 1406 MB | 1166 MB | 240 MB |
//! | 16 | 1537 MB | 1297 MB | 372 MB |
//! | 32 | 1800 MB | 1560 MB | 634 MB |
//!
//! That was a training of the smallest size; recurrent networks in f16 with GELU, whose kernels are the largest, took another 75 MB of
//! address space and 56 MB of data on two threads. With 50 MB less it crashed. A thread takes its stack, buffers, and an arena of 64 MB of the C library, which has at most eight
//! arenas a core: on two cores 16 threads and more share them.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

const MIB: u64 = 1 << 20;

/// A limit on the memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    kind: Kind,
    most: u64,
    used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AddressSpace,
    Data,
}

impl Kind {
    const ALL: [Self; 2] = [Self::AddressSpace, Self::Data];

    fn name(self) -> &'static str {
        match self {
            Self::AddressSpace => "address space (`ulimit -v`)",
            Self::Data => "data (`ulimit -d`)",
        }
    }

    /// Line of the limit in `/proc/self/limits`, and of its use in `/proc/self/status`.
    fn lines(self) -> [&'static str; 2] {
        match self {
            Self::AddressSpace => ["Max address space", "VmSize:"],
            Self::Data => ["Max data size", "VmData:"],
        }
    }

    /// Bytes that a software rasteriser with so many threads takes to create a device and compile the kernels of a training: the
    /// figures of the table with the largest kernels, and with an arena for every thread.
    fn of_software(self, threads: u64) -> u64 {
        match self {
            Self::AddressSpace => (416 + 160 * threads) * MIB,
            Self::Data => (192 + 24 * threads) * MIB,
        }
    }

    /// Bytes that are left of it for compiling once the device is open. With two threads that took 445 MB, and kernels 164 to 239.
    fn of_kernels(self, threads: u64) -> u64 {
        match self {
            Self::AddressSpace => (192 + 32 * threads) * MIB,
            Self::Data => (128 + 8 * threads) * MIB,
        }
    }

    /// Bytes that it takes to load the drivers and ask them for their adapters, which is done before the adapter is known: with
    /// llvmpipe alone 220 MB of address space.
    fn of_drivers(self) -> u64 {
        match self {
            Self::AddressSpace => 240 * MIB,
            Self::Data => 16 * MIB,
        }
    }
}

/// Whether this process has loaded drivers before, which then stay.
static LOADED: AtomicBool = AtomicBool::new(false);

/// Checks that drivers can be loaded, if none were so far.
///
/// # Errors
/// [`Error::ProcessLimit`].
pub(super) fn for_drivers() -> Result<()> {
    if LOADED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    check(&limits(), "loading the drivers of GPUs", Kind::of_drivers)
}

/// Checks that `adapter`, a software rasteriser, can create a device and compile kernels.
///
/// # Errors
/// [`Error::ProcessLimit`].
pub(super) fn for_software(adapter: &str) -> Result<()> {
    let threads = threads();
    check(&limits(), &format!("the driver of `{adapter}`"), |kind| kind.of_software(threads))
}

/// Bytes that the limits leave for buffers on a software rasteriser whose device is open: half of what compiling kernels does not
/// take, for this process allocates, too. `None` without limits.
pub(super) fn for_buffers() -> Option<u64> {
    let threads = threads();
    let left = |limit: &Limit| limit.left().saturating_sub(limit.kind.of_kernels(threads)) / 2;
    limits().iter().map(left).min()
}

fn check(limits: &[Limit], what: &str, needed: impl Fn(Kind) -> u64) -> Result<()> {
    match limits.iter().find(|limit| limit.left() < needed(limit.kind)) {
        Some(limit) => Err(Error::ProcessLimit {
            what: what.into(),
            needed: needed(limit.kind) / MIB,
            limited: limit.kind.name(),
            left: limit.left() / MIB,
            limit: limit.most / MIB,
        }),
        None => Ok(()),
    }
}

impl Limit {
    fn left(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// Threads of llvmpipe, which has at most 32.
fn threads() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let given = std::env::var("LP_NUM_THREADS").ok().and_then(|text| text.trim().parse().ok());
    given.unwrap_or(cores).clamp(1, 32)
}

#[cfg(target_os = "linux")]
fn limits() -> Vec<Limit> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    parse(&read("limits"), &read("status"))
}

#[cfg(not(target_os = "linux"))]
fn limits() -> Vec<Limit> {
    Vec::new()
}

/// The limits that are set.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn parse(limits: &str, status: &str) -> Vec<Limit> {
    let number = |text: &str, line: &str| -> Option<u64> {
        let rest = text.lines().find_map(|one| one.strip_prefix(line))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let limit = |kind: Kind| {
        let [most, used] = kind.lines();
        // `unlimited` is no number. The second figure is in kB.
        Some(Limit { kind, most: number(limits, most)?, used: number(status, used)?.saturating_mul(1024) })
    };
    Kind::ALL.into_iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\ttrainer\nVmPeak:\t  300000 kB\nVmSize:\t  245760 kB\nVmData:\t   10240 kB\n";

    fn of(address_space: &str, data: &str) -> Vec<Limit> {
        let text = format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max address space         {address_space}            unlimited            bytes     \n"
        );
        parse(&text, STATUS)
    }

    #[test]
    fn limits_leave_what_is_not_used() {
        assert_eq!(of("unlimited", "unlimited"), []);
        let limits = of("419430400", "104857600");
        assert_eq!(limits.iter().map(Limit::left).collect::<Vec<_>>(), [160 * MIB, 90 * MIB]);
        let error = check(&limits[..1], "the driver of `llvmpipe`", |kind| kind.of_software(2)).unwrap_err();
        let wanted = "the driver of `llvmpipe` needs about 736 MiB, and the limit on this process's address space \
                      (`ulimit -v`) leaves 160 of 400 MiB: raise it";
        assert!(error.to_string().starts_with(wanted), "{error}");
        let error = check(&limits[1..], "", |kind| kind.of_software(2)).unwrap_err().to_string();
        assert!(error.contains("data (`ulimit -d`) leaves 90 of 100 MiB"), "{error}");
        check(&of("1073741824", "unlimited"), "", |kind| kind.of_software(2)).unwrap();
        check(&of("unlimited", "unlimited"), "", |kind| kind.of_software(32)).unwrap();
    }

    /// The peaks of the table at the top, and what was in use when they were compared.
    #[test]
    fn the_figures_cover_what_was_measured() {
        let measured =
            [(1, 761, 125), (2, 849, 140), (4, 1203, 175), (8, 1406, 240), (16, 1537, 372), (32, 1800, 634)];
        for (threads, address_space, data) in measured {
            let taken = |kind: Kind| match kind {
                Kind::AddressSpace => (address_space - 240) * 1_000_000,
                Kind::Data => data * 1_000_000,
            };
            for kind in Kind::ALL {
                assert!(kind.of_software(threads) >= taken(kind), "{kind:?}, {threads} threads");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_names_its_limits_as_expected() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        for kind in Kind::ALL {
            let [limit, used] = kind.lines();
            assert!(text.contains(limit) && status.contains(used), "{kind:?}");
        }
    }
}
