#![no_main]

#[allow(dead_code, reason = "every fuzzer has one of the targets")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::live_bars(data);
});
