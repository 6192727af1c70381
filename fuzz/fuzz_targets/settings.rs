#![no_main]

// The program's own modules.
#[allow(dead_code, reason = "the program uses more of it")]
#[path = "../../examples/trainer/checked.rs"]
mod checked;
#[allow(dead_code, reason = "the program uses more of it")]
#[path = "../../examples/trainer/run.rs"]
mod run;
#[allow(dead_code, reason = "the program uses more of it")]
#[path = "../../examples/trainer/settings.rs"]
mod settings;

#[path = "../settings.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    target::settings(data);
});
