#![no_main]

#[allow(dead_code, reason = "every fuzzer has one of the targets")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(
    // The fuzzer's own hook ends the process at panics that the library catches too: those of the reader of Parquet files.
    init: std::panic::set_hook(Box::new(|panic| {
        if !panic.location().is_some_and(|location| location.file().contains("/parquet-")) {
            eprintln!("{panic}");
            std::process::abort();
        }
    })),
    |data: &[u8]| {
        targets::candles(data);
    }
);
