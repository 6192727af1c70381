//! Latency of single decisions on the CPU, and throughput of many on the device.
//!
//!     cargo bench -p phalanx-benches --bench policy
//!     cargo bench -p phalanx-benches --bench policy -- --peer PYTHON
//!
//! With `--peer` the program PYTHON (with `onnx`, `onnxruntime` and `numpy`) measures ONNX Runtime in turns with phalanx: the same
//! networks, weights and observations, one thread, the same schedule. Their outputs are compared first.
//!
//! Coordinated omission is avoided by a schedule: a decision is due every 100 microseconds (1 ms for the large network), whether or not
//! the one before has ended, and its latency counts from the moment when it was due. A stall therefore counts in all decisions that it
//! delays.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Activation, CriticInput, Precision, Sharing};
use phalanx::model::initial_weights;
use phalanx::policy::{ActionMode, ActionSpec, DevicePolicy, ModelMetadata, NetworkMetadata, Policy};
use phalanx::random::Stream;

/// Inputs and outputs of the networks.
const FEATURES: usize = 18;
const ACTIONS: u32 = 3;

/// Decisions of a round, and rounds, of which phalanx and the peer take turns.
const DECISIONS: usize = 20_000;
const ROUNDS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn policy(hidden: &[u32]) -> Result<Policy> {
    let metadata = ModelMetadata {
        version: "bench".into(),
        network: NetworkMetadata {
            agents: 1,
            obs_dim: FEATURES as u32,
            state_dim: 0,
            hidden: hidden.to_vec(),
            activation: Activation::Relu,
            input_norm: false,
            hidden_norm: true,
            recurrent: false,
            networks: Sharing::Shared,
            agent_identity: true,
            critic_input: CriticInput::Own,
            precision: Precision::F32,
        },
        actions: ActionSpec::Discrete { choices: vec![ACTIONS] },
        features: vec![],
        observation_moments: vec![],
        market: None,
    };
    let weights = initial_weights(&metadata.layout()?, Activation::Relu, 7);
    Ok(Policy::new(metadata, weights)?)
}

fn observations(count: usize) -> Vec<f32> {
    let mut random = Stream::new(1, 1);
    (0..count * FEATURES).map(|_| random.normal() as f32).collect()
}

/// Waits for `due` without sleeping, and returns the latency since then after `work`.
fn timed(due: Instant, work: impl FnOnce()) -> Duration {
    while Instant::now() < due {
        std::hint::spin_loop();
    }
    work();
    due.elapsed()
}

fn row(name: &str, histogram: &Histogram<u64>) {
    let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let quantile = |q: f64| us(histogram.value_at_quantile(q));
    println!(
        "{name:<38}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>10.1}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        us(histogram.max())
    );
}

/// One round of decisions on a schedule.
fn decide(policy: &Policy, interval: Duration, histogram: &mut Histogram<u64>) -> Result<()> {
    let mut state = policy.state(1)?;
    let all = observations(256);
    let mut act = |index: usize| {
        let own = &all[index % 256 * FEATURES..][..FEATURES];
        let actions = policy.act(&mut state, own, &[], ActionMode::Greedy);
        std::hint::black_box(actions.map(|actions| actions.choice(0, 0, 0)).unwrap_or_default());
    };
    (0..1000).for_each(&mut act);
    let start = Instant::now();
    for index in 0..DECISIONS {
        let latency = timed(start + interval * index as u32, || act(index));
        histogram.record(latency.as_nanos() as u64)?;
    }
    Ok(())
}

/// One round of the peer, whose latencies come in nanoseconds on standard output. Its logits are compared with ours.
fn peer(python: &str, policy: &Policy, interval: Duration, histogram: &mut Histogram<u64>) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/policy.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let layout = policy.layout();
    let tensors = layout.tensors.iter().filter(|tensor| tensor.name.starts_with("actor")).map(|tensor| {
        let rows = (0..tensor.shape[0]).flat_map(|row| {
            let first = tensor.first + row * tensor.stride;
            policy.weights()[first..first + tensor.shape[1]].to_vec()
        });
        format!("{:?}: [{:?}, {:?}]", tensor.name, tensor.shape, rows.collect::<Vec<f32>>())
    });
    let all = observations(256);
    let input = format!(
        "{{\"tensors\": {{{}}}, \"observations\": {all:?}, \"decisions\": {DECISIONS}, \"interval_ns\": {}}}",
        tensors.collect::<Vec<_>>().join(", "),
        interval.as_nanos()
    );
    child.stdin.take().ok_or("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err("the peer failed".into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let numbers = |line: Option<&str>| -> Result<Vec<f64>> {
        Ok(line
            .ok_or("a line is missing")?
            .split(' ')
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?)
    };
    let theirs = numbers(lines.next())?;
    let mut state = policy.state(1)?;
    for (index, theirs) in theirs.chunks_exact(ACTIONS as usize).enumerate() {
        policy.act(&mut state, &all[index * FEATURES..][..FEATURES], &[], ActionMode::Greedy)?;
        for (ours, theirs) in policy.probabilities(&mut state).iter().zip(theirs) {
            assert!((f64::from(*ours) - theirs).abs() < 1e-5, "observation {index}: {ours}, not {theirs}");
        }
    }
    for nanoseconds in numbers(lines.next())? {
        histogram.record(nanoseconds as u64)?;
    }
    Ok(())
}

fn latencies(python: Option<&str>, rounds: usize) -> Result<()> {
    println!("{:<38}{:>9}{:>9}{:>9}{:>9}{:>10}  microseconds", "", "p50", "p90", "p99", "p99.9", "max");
    for (hidden, interval) in [(vec![64, 64], 100), (vec![512, 512], 1000)] {
        let policy = policy(&hidden)?;
        let interval = Duration::from_micros(interval);
        let new = || Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3);
        let (mut own, mut other) = (new()?, new()?);
        for _ in 0..rounds {
            decide(&policy, interval, &mut own)?;
            if let Some(python) = python {
                peer(python, &policy, interval, &mut other)?;
            }
        }
        let shape = format!("{FEATURES}-{}-{}-{ACTIONS}", hidden[0], hidden[1]);
        println!(
            "{:<38}{:>9.2}  each, one after the other",
            format!("phalanx, CPU, {shape}"),
            back_to_back(&policy)?
        );
        row(&format!("phalanx, CPU, {shape}"), &own);
        if python.is_some() {
            row(&format!("ONNX Runtime, Python, {shape}"), &other);
            let ratio = |q: f64| other.value_at_quantile(q) as f64 / own.value_at_quantile(q) as f64;
            println!(
                "{:<38}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
                "times as fast",
                ratio(0.5),
                ratio(0.9),
                ratio(0.99),
                ratio(0.999)
            );
        }
    }
    Ok(())
}

/// Mean time of decisions one after the other, without any schedule or clock between them.
fn back_to_back(policy: &Policy) -> Result<f64> {
    let mut state = policy.state(1)?;
    let all = observations(256);
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        for own in all.chunks_exact(FEATURES) {
            let actions = policy.act(&mut state, std::hint::black_box(own), &[], ActionMode::Greedy)?;
            std::hint::black_box(actions);
        }
        best = best.min(start.elapsed().as_secs_f64() / 256.0);
    }
    Ok(best * 1e6)
}

fn throughput() -> Result<()> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    println!("\nDevice {}: decisions of 18-64-64-3 that stay on the device", gpu.info().name);
    let policy = policy(&[64, 64])?;
    println!("{:>10}{:>16}{:>18}{:>16}", "rows", "ms a decision", "rows a second", "with readback");
    for rows in [4usize, 64, 4096, 262_144] {
        let mut device = match DevicePolicy::new(&gpu, &policy, rows, ActionMode::Greedy, 0) {
            Ok(device) => device,
            Err(error) => {
                println!("{rows:>10}  {error}");
                continue;
            }
        };
        let all = observations(rows);
        let mut best = [f64::INFINITY; 2];
        for _ in 0..10 {
            let start = Instant::now();
            device.submit()?;
            gpu.wait()?;
            best[0] = best[0].min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            device.act(&all, &[])?;
            best[1] = best[1].min(start.elapsed().as_secs_f64());
        }
        println!(
            "{rows:>10}{:>16.3}{:>18.0}{:>13.3} ms",
            best[0] * 1e3,
            rows as f64 / best[0],
            best[1] * 1e3
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let python =
        arguments.iter().position(|argument| argument == "--peer").and_then(|at| arguments.get(at + 1));
    // For benches/peers/compare.py, which repeats and shows the repetitions' spread.
    if arguments.iter().any(|argument| argument == "--once") {
        return latencies(python.map(String::as_str), 1);
    }
    latencies(python.map(String::as_str), ROUNDS)?;
    throughput()
}
