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
//! address space and 56 MB of data on two threads. With 50 MB less it crashed. A thread takes its stack and buffers (16 MB), and an arena
//! of 64 MB of the C library, which has at most eight arenas a core: on two cores 16 threads and more share them.
//!
//! llvmpipe has as many threads as there are CPUs in the affinity mask of the process, at most 32 (`LP_MAX_THREADS`), whatever quota a
//! container has; `LP_NUM_THREADS` goes before that.

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
    /// figures of the table with the largest kernels, and with an arena for every thread. The first threads take more.
    fn of_software(self, threads: u64) -> u64 {
        match self {
            Self::AddressSpace => (432 + 144 * threads.min(4) + 80 * threads.saturating_sub(4)) * MIB,
            Self::Data => (192 + 16 * threads) * MIB,
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
    once(&LOADED, &limits())
}

/// Checks the limits unless `loaded` says that they were found sufficient before.
fn once(loaded: &AtomicBool, limits: &[Limit]) -> Result<()> {
    if !loaded.load(Ordering::Relaxed) {
        check(limits, "loading the drivers of GPUs", None, Kind::of_drivers)?;
        loaded.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Checks that `adapter`, a software rasteriser, can create a device and compile kernels.
///
/// # Errors
/// [`Error::ProcessLimit`].
pub(super) fn for_software(adapter: &str) -> Result<()> {
    software(&limits(), adapter, threads())
}

fn software(limits: &[Limit], adapter: &str, threads: u64) -> Result<()> {
    let plural = if threads == 1 { "" } else { "s" };
    let what = format!("the driver of `{adapter}`, with {threads} thread{plural},");
    let one_thread: fn(Kind) -> u64 = |kind| kind.of_software(1);
    check(limits, &what, (threads > 1).then_some(one_thread), |kind| kind.of_software(threads))
}

/// Bytes that the limits leave for buffers on a software rasteriser whose device is open: half of what compiling kernels does not
/// take, for this process allocates, too. `None` without limits.
pub(super) fn for_buffers() -> Option<u64> {
    let threads = threads();
    let left = |limit: &Limit| limit.left().saturating_sub(limit.kind.of_kernels(threads)) / 2;
    limits().iter().map(left).min()
}

/// Checks that all limits leave what is `needed`. `one_thread` is what one thread would need.
fn check(
    limits: &[Limit],
    what: &str,
    one_thread: Option<fn(Kind) -> u64>,
    needed: impl Fn(Kind) -> u64,
) -> Result<()> {
    let Some(limit) = limits.iter().find(|limit| limit.left() < needed(limit.kind)) else { return Ok(()) };
    let remedy = match one_thread.map(|one| one(limit.kind)) {
        Some(one) if one <= limit.left() => {
            format!("set LP_NUM_THREADS=1, with which it needs {} MiB, or ", one / MIB)
        }
        Some(one) => format!("set LP_NUM_THREADS=1, with which it needs {} MiB, and ", one / MIB),
        None => String::new(),
    };
    Err(Error::ProcessLimit {
        what: what.into(),
        needed: needed(limit.kind) / MIB,
        limited: limit.kind.name(),
        left: limit.left() / MIB,
        limit: limit.most / MIB,
        remedy,
    })
}

impl Limit {
    fn left(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// Most threads of llvmpipe.
const MOST_THREADS: u64 = 32;

/// Threads of llvmpipe in this process.
fn threads() -> u64 {
    threads_with(std::env::var("LP_NUM_THREADS").ok().as_deref(), &of_process("status"))
}

/// Threads of llvmpipe by `LP_NUM_THREADS` or else by the text of `/proc/self/status`. The standard library counts a container's quota as
/// fewer CPUs, which llvmpipe does not.
fn threads_with(given: Option<&str>, status: &str) -> u64 {
    let given = given.and_then(|text| text.trim().parse().ok());
    let cpus = || {
        allowed_cpus(status)
            .or_else(|| std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u64))
    };
    given.or_else(cpus).unwrap_or(MOST_THREADS).clamp(1, MOST_THREADS)
}

/// CPUs in the affinity mask: words in hexadecimal with commas between them.
fn allowed_cpus(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"))?.trim();
    let digits = mask.chars().filter(|digit| *digit != ',').map(|digit| digit.to_digit(16));
    let cpus: u64 =
        digits.map(|digit| digit.map(|digit| u64::from(digit.count_ones()))).sum::<Option<_>>()?;
    (cpus > 0).then_some(cpus)
}

/// A file about this process; empty where there is none.
fn of_process(file: &str) -> String {
    if cfg!(target_os = "linux") {
        std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default()
    } else {
        String::new()
    }
}

#[cfg(target_os = "linux")]
fn limits() -> Vec<Limit> {
    parse(&of_process("limits"), &of_process("status"))
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
        let error = software(&limits[..1], "llvmpipe", 2).unwrap_err();
        let wanted = "the driver of `llvmpipe`, with 2 threads, needs about 720 MiB, and the limit on this process's address space \
                      (`ulimit -v`) leaves 160 of 400 MiB: set LP_NUM_THREADS=1, with which it needs 576 MiB, and raise it";
        assert!(error.to_string().starts_with(wanted), "{error}");
        let error = software(&limits[1..], "", 2).unwrap_err().to_string();
        assert!(error.contains("data (`ulimit -d`) leaves 90 of 100 MiB"), "{error}");
        software(&of("1073741824", "unlimited"), "", 2).unwrap();
        software(&of("unlimited", "unlimited"), "", 32).unwrap();
        // One thread would do; there are no fewer than one.
        let error = software(&of("1073741824", "unlimited"), "", 8).unwrap_err().to_string();
        assert!(
            error.contains(": set LP_NUM_THREADS=1, with which it needs 576 MiB, or raise it ("),
            "{error}"
        );
        let error = software(&limits, "", 1).unwrap_err().to_string();
        assert!(error.contains("with 1 thread, needs") && !error.contains("LP_NUM_THREADS"), "{error}");
    }

    #[test]
    fn drivers_are_checked_again_after_a_refusal() {
        let loaded = AtomicBool::new(false);
        let (little, enough) = (of("419430400", "unlimited"), of("1073741824", "unlimited"));
        once(&loaded, &little).unwrap_err();
        once(&loaded, &little).unwrap_err();
        once(&loaded, &enough).unwrap();
        // Drivers that are loaded stay.
        once(&loaded, &little).unwrap();
    }

    #[test]
    fn threads_are_counted_as_llvmpipe_does() {
        let status = |mask: &str| format!("Name:\ttrainer\nCpus_allowed:\t{mask}\nCpus_allowed_list:\t0-3\n");
        for (given, mask, expected) in [
            (None, "3", 2),
            (None, "f", 4),
            (None, "00000000,0000ff00", 8),
            (None, "ffffffff,ffffffff", 32),
            (Some("5"), "3", 5),
            (Some(" 64 "), "3", 32),
            (Some("0"), "3", 1),
            (Some("many"), "7", 3),
        ] {
            assert_eq!(threads_with(given, &status(mask)), expected, "{given:?} {mask}");
        }
        assert_eq!(
            (allowed_cpus(""), allowed_cpus(&status("x")), allowed_cpus(&status("0"))),
            (None, None, None)
        );
        #[cfg(target_os = "linux")]
        assert!(allowed_cpus(&of_process("status")).is_some());
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
                let of_largest_kernels = match kind {
                    Kind::AddressSpace => 75_000_000,
                    Kind::Data => 56_000_000,
                };
                let taken = taken(kind) + of_largest_kernels;
                let asked = kind.of_software(threads);
                assert!(asked >= taken, "{kind:?}, {threads} threads: {asked} for {taken}");
                // From 16 threads on two cores shared arenas.
                assert!(
                    threads > 8 || asked <= taken + taken / 4,
                    "{kind:?}, {threads}: {asked} for {taken}"
                );
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
