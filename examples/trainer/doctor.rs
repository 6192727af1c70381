//! `doctor`: what the GPU is and can do, which kernels it gets, and what training would take of its memory.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context, Result};
use phalanx::env::{EnvRecording, Environment, RolloutBuffers, Spec, TradingSettings, observation_size};
use phalanx::gpu::{Budget, Gpu, Plan};
use phalanx::mappo::Cooperative;
use phalanx::mappo::{Config, Precision, Sizes};
use phalanx::market::FEATURES;

/// Name, backend and driver in one line.
pub fn adapter(gpu: &Gpu) -> String {
    let info = gpu.info();
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    format!("{} ({}, {})", info.name, info.backend, driver.trim())
}

/// Sizes of the demo's market, without a market: a plan needs no candles.
struct FourInstruments;

impl Environment for FourInstruments {
    fn spec(&self) -> Spec {
        let actions = TradingSettings::default().positions.len() as u32;
        Spec { agents: 4, obs_dim: observation_size(FEATURES.len()), actions }
    }

    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(TradingSettings::default().episode_length)
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        phalanx::env::market::plan(4, envs, steps)
    }

    fn record(&self, _: &Gpu, _: &RolloutBuffers<'_>) -> phalanx::Result<EnvRecording> {
        Ok(EnvRecording { reset: Vec::new(), steps: Vec::new(), state: Vec::new() })
    }
}

pub fn doctor(open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let gpu = open()?;
    let mut text = String::new();
    let limits = gpu.device().limits();
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1048576.0);
    writeln!(text, "Adapter       {}", adapter(&gpu))?;
    writeln!(text, "Kind          {:?}, kernels for {:?}", gpu.info().device_type, gpu.class())?;
    writeln!(text, "Features      {}", gpu.device().features())?;
    let matrices: Vec<_> = gpu.cooperative_matrices().iter().map(|shape| format!("{shape:?}")).collect();
    writeln!(
        text,
        "Matrices      {}",
        if matrices.is_empty() { "none".into() } else { matrices.join("; ") }
    )?;
    writeln!(text, "  of these the kernels use: {:?}", Cooperative::proven(&gpu)?)?;
    writeln!(text, "Binding       {}", mib(limits.max_storage_buffer_binding_size))?;
    writeln!(text, "Storage       {} buffers per kernel", limits.max_storage_buffers_per_shader_stage)?;
    writeln!(
        text,
        "Workgroup     {} invocations, {} bytes of memory",
        limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_storage_size
    )?;

    writeln!(text, "\nKernels")?;
    for (shader, variant) in phalanx::kernels(gpu.class()) {
        let constants: Vec<_> =
            variant.constants.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let flags = variant.flags.join(" ");
        let workgroup = variant.workgroup;
        writeln!(text, "  {:<24} workgroup {workgroup:>3}  {} {flags}", shader.name, constants.join(" "))?;
    }

    let budget = Budget::of(&gpu, None);
    for precision in [Precision::F32, Precision::F16] {
        let config = Config { precision, ..Config::default() };
        let layout = config.layout(&FourInstruments)?;
        let (sizes, kernel_config) = Sizes::decide(&gpu, &config, &FourInstruments, &layout, &budget)?;
        let plan = sizes.plan(&FourInstruments, &layout, &config, &kernel_config);
        writeln!(
            text,
            "\nMemory plan in {precision:?} for 4 instruments with default settings: {} of a budget of {}",
            mib(plan.bytes()),
            mib(budget.total)
        )?;
        writeln!(
            text,
            "  {} environments x {} steps, {} micro-batches of {} rows, {} parameters",
            sizes.envs,
            sizes.steps,
            sizes.micro_batches(),
            sizes.micro_quads() * 4,
            layout.parameters()
        )?;
        let mut entries = plan.entries().to_vec();
        entries.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        for (name, bytes) in entries.iter().take(8) {
            writeln!(text, "  {name:<24} {:>12}", mib(*bytes))?;
        }
    }
    print(&text)
}

/// Prints in one go; a reader that has seen enough, like `head`, is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}
