//! `readiness`: measures what phalanx promises, on this adapter, and computes a score. Nothing is stored: a number that could not be
//! measured here does not count as kept.

mod indicators;
mod plain;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ndarray::Array2;
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::Gpu;
use phalanx::jiff::ToSpan as _;
use phalanx::jiff::civil::date;
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};
use phalanx::ndarray;
use phalanx::policy::{MarketMetadata, Policy};
use phalanx::random::Stream;
use serde::Serialize;

use crate::console::{self, say};
use crate::run::{Settings, only_limits};

#[derive(Args)]
pub struct ReadinessArgs {
    /// Candle files or folders; 1,000 bars at least. Random walks of four instruments by default.
    #[arg(long, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Leave out what takes longest: an iteration of the largest batch of every memory budget, and numpy.
    #[arg(long)]
    pub quick: bool,
    /// Least score for a successful exit status.
    #[arg(long, default_value_t = 0.8)]
    pub threshold: f64,
    /// A limit on candle files; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// A promise, and what was measured.
#[derive(Serialize)]
pub struct Promise {
    promise: &'static str,
    target: String,
    measured: String,
    verdict: Verdict,
    weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Kept,
    Missed,
    NotMeasured,
}

impl Promise {
    pub fn new(
        promise: &'static str,
        target: impl Into<String>,
        measured: String,
        kept: bool,
        weight: u32,
    ) -> Self {
        let verdict = if kept { Verdict::Kept } else { Verdict::Missed };
        Self { promise, target: target.into(), measured, verdict, weight }
    }

    pub fn not_measured(
        promise: &'static str,
        target: impl Into<String>,
        why: impl Into<String>,
        weight: u32,
    ) -> Self {
        Self { promise, target: target.into(), measured: why.into(), verdict: Verdict::NotMeasured, weight }
    }
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    version: &'static str,
    date: String,
    promises: Vec<Promise>,
    score: f64,
    threshold: f64,
    ready: bool,
    seconds: f64,
}

pub fn readiness(args: &ReadinessArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    let started = Instant::now();
    ensure!(
        (0.0..=1.0).contains(&args.threshold),
        "--threshold {}: a score is between 0 and 1",
        args.threshold
    );
    only_limits(&args.sets)?;
    let candles = match args.data.is_empty() {
        true => random_walks(2000)?,
        false => {
            let settings = Settings::read(None, &args.sets)?;
            crate::candles::load(&args.data, &settings.data)?
        }
    };
    ensure!(candles.bars() >= 1000, "--data: {} bars, expected 1000 at least", candles.bars());
    let gpu = open()?;
    let mut promises = Vec::new();
    console::busy("measuring the indicators");
    promises.extend(indicators::measure(&gpu, args.quick)?);
    console::busy("measuring decisions");
    promises.extend(decisions(&gpu, &candles)?);
    console::busy("measuring the training");
    promises.extend(training::measure(&gpu, &candles, args.quick)?);
    console::idle();
    let total: u32 = promises.iter().map(|promise| promise.weight).sum();
    let kept = promises.iter().filter(|promise| promise.verdict == Verdict::Kept);
    let score = f64::from(kept.map(|promise| promise.weight).sum::<u32>()) / f64::from(total);
    let report = Report {
        adapter: crate::doctor::adapter(&gpu),
        version: env!("CARGO_PKG_VERSION"),
        date: today(),
        promises,
        score,
        threshold: args.threshold,
        ready: score >= args.threshold,
        seconds: started.elapsed().as_secs_f64(),
    };
    match args.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => print(&report),
    }
    Ok(if report.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) {
    say!("{}", report.adapter);
    for Promise { promise, target, measured, verdict, weight } in &report.promises {
        let verdict = match verdict {
            Verdict::Kept => "kept",
            Verdict::Missed => "MISSED",
            Verdict::NotMeasured => "not measured",
        };
        say!("{verdict:<13}{promise} (weight {weight})");
        say!("{:<13}target {target}; measured {measured}", "");
    }
    let kept = report.promises.iter().filter(|promise| promise.verdict == Verdict::Kept).count();
    say!(
        "Score {:.2}: {kept} of {} promises kept, by weight; {} (threshold {}); {:.0} s",
        report.score,
        report.promises.len(),
        if report.ready { "ready" } else { "not ready" },
        report.threshold,
        report.seconds
    );
}

fn today() -> String {
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let day = date(1970, 1, 1).checked_add((seconds as i64 / 86_400).days());
    day.map_or_else(|_| "unknown".into(), |day| day.to_string())
}

/// Random walks of four instruments, always the same.
fn random_walks(bars: usize) -> Result<Candles> {
    let mut random = Stream::new(17, 4);
    let start = date(2015, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..bars).map(|bar| start.saturating_add((bar as i64).days())).collect();
    let shape = (4, bars);
    let mut close = Array2::from_elem(shape, 100.0);
    let mut open = close.clone();
    for i in 0..4 {
        for bar in 1..bars {
            open[[i, bar]] = close[[i, bar - 1]] * (1.0 + 0.002 * random.normal());
            close[[i, bar]] = close[[i, bar - 1]] * (0.015 * random.normal()).exp();
        }
    }
    let mut range = |sign: f64| {
        Array2::from_shape_fn(shape, |at| {
            let (a, b) = (open[at], close[at]);
            let end = if sign > 0.0 { a.max(b) } else { a.min(b) };
            end * (1.0 + sign * 0.005 * random.uniform())
        })
    };
    let (high, low) = (range(1.0), range(-1.0));
    let volume = Array2::from_elem(shape, 1000.0);
    let symbols = ["W0", "W1", "W2", "W3"].map(String::from).to_vec();
    Ok(Candles::new(symbols, timestamps, open, high, low, close, Some(volume))?)
}

/// A policy of the default settings, trained for one iteration: what it has learnt does not matter here.
pub fn policy(gpu: &Gpu, candles: &Candles) -> Result<Policy> {
    let train = candles.bars() / 2;
    let data = MarketData::new(gpu, candles, &ExtraFeatures::default(), &Scaling::Fit(0..train))?;
    let settings = TradingSettings::default();
    let environment = Trading::new(&data, &settings, &Episodes::Random(data.first_bar()..train))?;
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 16;
    config.ppo.epochs = 1;
    config.ppo.iterations = 1;
    let mut trainer = Trainer::new(gpu, &environment, &config)?;
    trainer.train(|_| ())?;
    let market = MarketMetadata {
        settings,
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[data.first_bar()],
        train_to: candles.timestamps[train - 1],
        test_from: candles.timestamps[train],
        bars: None,
    };
    Ok(trainer.policy()?.with_market(market)?)
}

/// The quick validation, and the latency of its decisions.
fn decisions(gpu: &Gpu, candles: &Candles) -> Result<Vec<Promise>> {
    let policy = policy(gpu, candles)?;
    let started = Instant::now();
    let limit = Duration::from_millis(100);
    let checked = crate::validate::check(gpu, &policy, candles, candles.bars() / 2, limit)?;
    let seconds = started.elapsed().as_secs_f64();
    let latency = &checked.latency;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let violations = latency.violations as f64 / latency.decisions() as f64;
    let [mean, p99, max] = [latency.mean(), latency.quantile(0.99), latency.max()].map(ms);
    Ok(vec![
        Promise::new(
            "Quick validation: 500 bars, 5 episodes of 50 steps",
            "under 5 s",
            format!("{seconds:.2} s"),
            seconds < 5.0,
            2,
        ),
        Promise::new(
            "A decision, from the bar to the target, in time",
            "mean, p99 and max under 100 ms",
            format!("{mean:.2}, {p99:.2} and {max:.2} ms over {} decisions", latency.decisions()),
            mean.max(p99).max(max) < 100.0,
            2,
        ),
        Promise::new(
            "Violations of 100 ms",
            "under 1 %",
            format!("{:.2} %", 100.0 * violations),
            violations < 0.01,
            1,
        ),
        Promise::new(
            "CPU and device take the same actions",
            "99.9 %",
            format!("{:.2} %", 100.0 * checked.device_agreement),
            checked.device_agreement >= 0.999,
            1,
        ),
    ])
}
