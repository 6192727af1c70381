//! `doctor`: shows the GPU, its features, its kernels, and the memory that training takes.

use std::fmt::Write as _;

use anyhow::Result;
use phalanx::env::{
    EnvRecording, Environment, RolloutBuffers, Spec, Trading, TradingSettings, observation_size,
};
use phalanx::gpu::{Budget, Class, Gpu, Plan};
use phalanx::mappo::{Config, Cooperative, KernelConfig, Precision, Sizes};
use phalanx::market::FEATURES;
use phalanx::wgpu;

use crate::console::say;

/// Name, backend and driver in one line.
pub fn adapter(gpu: &Gpu) -> String {
    let info = gpu.info();
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    format!("{} ({}, {})", info.name, info.backend, driver.trim())
}

/// An environment with the sizes of the demo's market, for memory plans, which need no candles.
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
        Trading::plan_of(4, envs, steps)
    }

    fn record(&self, _: &Gpu, _: &RolloutBuffers<'_>) -> phalanx::Result<EnvRecording> {
        Ok(EnvRecording { reset: Vec::new(), steps: Vec::new(), state: Vec::new() })
    }
}

pub fn doctor(open: impl Fn() -> phalanx::Result<Gpu>, verbose: bool) -> Result<()> {
    let gpu = open()?;
    let mut text = summary(&gpu)?;
    if verbose {
        text += &details(&gpu)?;
    } else {
        writeln!(text, "\nEvery kernel variant, limit and buffer: trainer doctor --verbose")?;
    }
    say!("{}", text.trim_end());
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Optional features that phalanx uses, and their purpose.
const OPTIONAL_FEATURES: [(wgpu::Features, &str, &str); 6] = [
    (wgpu::Features::SHADER_F16, "f16", "native half precision (otherwise packed in u32)"),
    (wgpu::Features::SUBGROUP, "subgroups", "invocations share loaded values"),
    (wgpu::Features::SHADER_INT64, "64-bit integers", "wider loads on software rasterisers"),
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "matrix units", "f16 matrix products"),
    (wgpu::Features::PIPELINE_CACHE, "pipeline cache", "kernels stay compiled between runs"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamps", "benchmarks measure GPU time"),
];

/// Summary on one screen of 80 columns and 24 lines.
fn summary(gpu: &Gpu) -> Result<String> {
    let mut text = String::new();
    let budget = Budget::of(gpu, None);
    let class = match gpu.class() {
        Class::Hardware => "GPUs",
        Class::Software => "software rasterisers",
    };
    writeln!(text, "Adapter   {:.70}", adapter(gpu))?;
    writeln!(text, "Kernels   optimised for {class}")?;
    let memory = gpu.memory();
    let (available, used) = (mib(memory.available), mib(memory.used));
    writeln!(text, "Memory    {available} for this process, {used} used ({})", memory.source)?;
    writeln!(text, "Budget    {} for a plan (setting: mappo.memory_budget_mb)", mib(budget.total))?;
    writeln!(text, "\nFeatures")?;
    for (feature, name, purpose) in OPTIONAL_FEATURES {
        let has = if gpu.device().features().contains(feature) { "yes" } else { "no" };
        writeln!(text, "  {name:<16} {has:<4} {purpose}")?;
    }
    writeln!(text, "\nNetwork kernels")?;
    for precision in [Precision::F32, Precision::F16] {
        // Whether or not the plan fits into memory.
        let (_, _, kernel_config) = planned(gpu, precision, &Budget { total: u64::MAX, ..budget })?;
        writeln!(text, "  {}  {}", name(precision), describe(&kernel_config))?;
    }
    writeln!(text, "\nMemory plan for the default settings and four instruments")?;
    for precision in [Precision::F32, Precision::F16] {
        match planned(gpu, precision, &budget) {
            Ok((plan, sizes, _)) => writeln!(
                text,
                "  {}  {} of a budget of {}: {} environments, {} micro-batches",
                name(precision),
                mib(plan.bytes()),
                mib(budget.total),
                sizes.envs,
                sizes.micro_batches(),
            )?,
            Err(error) => writeln!(text, "  {}  {error}", name(precision))?,
        }
    }
    Ok(text)
}

fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F16 => "f16",
        _ => "f32",
    }
}

/// The network kernels in one line.
fn describe(kernel_config: &KernelConfig) -> String {
    if let Some(blocks) = kernel_config.blocks {
        let (rows, invocations) = (4 * blocks.quads, blocks.workgroup());
        return format!("blocks of {rows} rows in workgroup memory, workgroups of {invocations}");
    }
    if let Some(blocks) = kernel_config.stream {
        let (rows, invocations) = (4 * blocks.quads, blocks.workgroup());
        return format!(
            "blocks of {rows} rows, layers in parts of {}, workgroups of {invocations}",
            blocks.width
        );
    }
    let method = match (kernel_config.cooperative, kernel_config.subgroup_broadcast) {
        (Some(matrices), _) => format!("matrix units, {0} by {0}", matrices.size),
        (None, true) => "subgroup broadcast, weights in a texture".into(),
        (None, false) => "register tiles".into(),
    };
    let KernelConfig { workgroup, columns, .. } = kernel_config;
    format!("{method}; {columns} columns, workgroups of {workgroup}")
}

/// Memory plan, sizes and kernels of training with default settings and four instruments.
fn planned(gpu: &Gpu, precision: Precision, budget: &Budget) -> Result<(Plan, Sizes, KernelConfig)> {
    let mut config = Config::default();
    config.device.precision = precision;
    let layout = config.layout(&FourInstruments)?;
    let (sizes, kernel_config) = Sizes::decide(gpu, &config, &FourInstruments, &layout, budget)?;
    let plan = sizes.plan(&FourInstruments, &layout, &config, &kernel_config);
    Ok((plan, sizes, kernel_config))
}

/// All features and limits, every kernel variant, the largest buffers.
fn details(gpu: &Gpu) -> Result<String> {
    let mut text = String::new();
    let limits = gpu.device().limits();
    let matrices: Vec<_> = gpu.cooperative_matrices().iter().map(|shape| format!("{shape:?}")).collect();
    let matrices = if matrices.is_empty() { "none".into() } else { matrices.join("; ") };
    writeln!(text, "\nAll features  {}", gpu.device().features())?;
    writeln!(text, "Matrices      {matrices}; used by kernels: {:?}", Cooperative::proven(gpu)?)?;
    writeln!(text, "Binding       {}", mib(limits.max_storage_buffer_binding_size))?;
    writeln!(text, "Storage       {} buffers per kernel", limits.max_storage_buffers_per_shader_stage)?;
    writeln!(
        text,
        "Workgroup     {} invocations, {} bytes of memory",
        limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_storage_size
    )?;
    writeln!(text, "\nKernel variants")?;
    for (shader, variant) in phalanx::kernels(gpu.class()) {
        let constants: Vec<_> =
            variant.constants.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let flags = variant.flags.join(" ");
        let workgroup = variant.workgroup;
        writeln!(text, "  {:<24} workgroup {workgroup:>3}  {} {flags}", shader.name, constants.join(" "))?;
    }
    let budget = Budget::of(gpu, None);
    for precision in [Precision::F32, Precision::F16] {
        let (plan, ..) = planned(gpu, precision, &Budget { total: u64::MAX, ..budget })?;
        writeln!(text, "\nLargest buffers in {}", name(precision))?;
        let mut entries = plan.entries().to_vec();
        entries.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        for (name, bytes) in entries.iter().take(8) {
            writeln!(text, "  {name:<24} {:>12}", mib(*bytes))?;
        }
    }
    Ok(text)
}
