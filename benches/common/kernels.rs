//! Measures single kernels: GPU time, wall time and effective memory bandwidth.

use std::time::Duration;

use criterion::{BenchmarkGroup, measurement::WallTime};
use phalanx::gpu::{Command, Profiler, Timing};

/// One or more dispatches of one kernel.
pub struct Stage {
    pub name: &'static str,
    pub commands: Vec<Command>,
    /// Bytes that one dispatch reads and writes, counting every value once.
    pub bytes: f64,
}

/// Prints the best of five runs, then measures with criterion. Printed figures are per dispatch, criterion's per run.
pub fn measure(group: &mut BenchmarkGroup<'_, WallTime>, profiler: &Profiler, stage: &Stage) {
    let run = || profiler.time(&stage.commands).expect("a run");
    let runs: Vec<Timing> = (0..5).map(|_| run()).collect();
    let best = runs.iter().min_by_key(|timing| timing.gpu.unwrap_or(timing.wall)).expect("runs");
    let seconds = |time: Duration| time.as_secs_f64() / stage.commands.len() as f64;
    println!(
        "{:<12} GPU {}, wall {:.4} ms, {:.3} MB, {:.2} GB/s",
        stage.name,
        best.gpu.map_or("unmeasured".into(), |gpu| format!("{:.4} ms", seconds(gpu) * 1e3)),
        seconds(best.wall) * 1e3,
        stage.bytes / 1e6,
        stage.bytes / seconds(best.gpu.unwrap_or(best.wall)) / 1e9,
    );
    group.bench_function(stage.name, |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| run().wall).sum());
    });
}
