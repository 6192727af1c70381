//! `validate`: a quick check of a model on 500 representative bars, five episodes of 50 steps.
//!
//! The bars are five contiguous stretches of 100, at equal distances over the held-out bars: single rows would have no history, and the
//! indicators of every stretch need 34 bars before its first decision. The first 49 bars of a stretch are that history, 50 get decisions,
//! and the last decision fills at the last bar.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use phalanx::gpu::Gpu;
use phalanx::mappo::Precision;
use phalanx::market::{Candles, ExtraFeatures};
use phalanx::policy::{ActionMode, DevicePolicy, Live, Policy};

use crate::console::{self, note, say};
use crate::folder::Folder;
use crate::known::Known;
use crate::live::latency::Latency;
use crate::memory;
use crate::run::{Settings, ValidateSettings, only_validate};
use report::Report;

/// Episodes, steps of each, and bars of each.
pub const EPISODES: usize = 5;
pub const STEPS: usize = 50;
const BARS: usize = 100;

#[derive(Args)]
pub struct ValidateArgs {
    /// Folder of a trained run.
    #[arg(long)]
    pub run: PathBuf,
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them; 500 bars at least.
    #[arg(long, required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// A threshold or a limit: validate.max_drawdown=0.3, live.latency_limit_ms=20; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Results of the five episodes.
pub struct Checked {
    /// Equity over starting equity, less 1, per episode.
    pub returns: Vec<f64>,
    /// Largest drawdown per episode, as a fraction.
    pub drawdowns: Vec<f64>,
    /// Target levels and how often each was decided.
    pub targets: Vec<(f64, usize)>,
    pub latency: Latency,
    /// Fractions of equal actions.
    pub device_agreement: f64,
    pub f16_agreement: f64,
    /// Largest difference of a probability between f16 and f32.
    pub f16_difference: f32,
    /// First bar of every stretch.
    pub stretches: Vec<String>,
}

pub fn validate(args: &ValidateArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    let started = Instant::now();
    only_validate(&args.sets)?;
    let run = Folder::trained(&args.run)?;
    let settings = Settings::of_live(&run.settings(), &args.sets)?;
    let policy = Policy::load(&run.model())?;
    let market = policy.market()?;
    let candles = crate::candles::load(&args.data, &settings.data)?;
    if let Some(difference) = market.bars.and_then(|bars| bars.difference_of_candles(&candles)) {
        note!("warning: {difference}");
    }
    let bars = Known::new(&settings, market).held_out(&candles)?;
    let held_out = bars.len() >= EPISODES * BARS;
    let gpu = open()?;
    console::busy("checking the model");
    let limit = Duration::from_secs_f64(settings.live.latency_limit_ms / 1e3);
    if !held_out {
        note!(
            "warning: {} bars are held out, fewer than {}: the check uses all bars, also those the model was trained on",
            bars.len(),
            EPISODES * BARS
        );
    }
    // Bars after the held-out ones may have trained the model.
    let end = if held_out { bars.end } else { candles.bars() };
    let first = if held_out { bars.start } else { 0 };
    let checked = check(&gpu, &policy, &candles.slice(0..end)?, first, limit)?;
    console::idle();
    let report = Report::new(
        &checked,
        &settings.validate,
        started.elapsed(),
        memory::peak_of_process(),
        memory::allocated(&gpu),
    );
    match args.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => report.print(),
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the episodes on stretches of the bars from `first` on.
pub fn check(
    gpu: &Gpu,
    policy: &Policy,
    candles: &Candles,
    first: usize,
    limit: Duration,
) -> Result<Checked> {
    let bars = candles.bars() - first;
    ensure!(
        bars >= EPISODES * BARS,
        "{bars} bars, expected {} at least: {EPISODES} episodes of {STEPS} steps, each after its history",
        EPISODES * BARS
    );
    let settings = &policy.market()?.settings;
    let mut latency = Latency::new(limit)?;
    let mut checked = Checked {
        returns: vec![],
        drawdowns: vec![],
        targets: vec![],
        latency: Latency::new(limit)?,
        device_agreement: 0.0,
        f16_agreement: 0.0,
        f16_difference: 0.0,
        stretches: vec![],
    };
    // Observations and targets, `[step][episode]`.
    let mut seen = vec![Vec::new(); STEPS];
    for episode in 0..EPISODES {
        let start = first + episode * (bars - BARS) / (EPISODES - 1);
        let mut live = Live::new(gpu, policy)?;
        live.warm_up(&candles.slice(start..start + BARS - STEPS - 1)?, &ExtraFeatures::default())?;
        checked.stretches.push(candles.timestamps[start].to_string());
        let (mut peak, mut drawdown) = (settings.starting_equity, 0f64);
        for step in 0..=STEPS {
            let bar = start + BARS - STEPS - 1 + step;
            let mut now = candles.live_bars(bar);
            let asked = Instant::now();
            let decision = live.decide(candles.timestamps[bar], &mut now, &[], None)?;
            latency.record(asked.elapsed());
            ensure!(
                decision.is_some(),
                "the history of a stretch is too short for the features of this model"
            );
            let equity = live.account().equity();
            peak = peak.max(equity);
            drawdown = drawdown.max(1.0 - equity / peak);
            // The last bar only fills the last order.
            if let Some(seen) = seen.get_mut(step) {
                seen.extend_from_slice(live.observations());
                for target in &live.last().targets {
                    match checked.targets.iter_mut().find(|(level, _)| level == target) {
                        Some((_, count)) => *count += 1,
                        None => checked.targets.push((*target, 1)),
                    }
                }
            }
        }
        checked.returns.push(live.account().equity() / settings.starting_equity - 1.0);
        checked.drawdowns.push(drawdown);
    }
    checked.targets.sort_by(|a, b| a.0.total_cmp(&b.0));
    checked.latency = latency;
    checked.device_agreement = device_agreement(gpu, policy, &seen)?;
    (checked.f16_agreement, checked.f16_difference) = f16_agreement(policy, &seen)?;
    Ok(checked)
}

/// Fraction of equal actions. Continuous ones are equal within a thousandth of their range.
fn equal(policy: &Policy, here: &[u32], there: &[u32]) -> usize {
    let same = |(a, b): &(&u32, &u32)| match policy.metadata().actions.continuous() {
        true => (f32::from_bits(**a) - f32::from_bits(**b)).abs() <= 2e-3,
        false => a == b,
    };
    here.iter().zip(there).filter(same).count()
}

fn device_agreement(gpu: &Gpu, policy: &Policy, seen: &[Vec<f32>]) -> Result<f64> {
    let masks = vec![policy.market()?.settings.mask(); EPISODES * policy.metadata().network.agents as usize];
    let mut device = DevicePolicy::new(gpu, policy, EPISODES, ActionMode::Greedy, 0)?;
    let mut state = policy.state(EPISODES)?;
    let (mut same, mut all) = (0, 0);
    for observations in seen {
        let there = device.act(observations, &masks)?;
        let here = policy.act(&mut state, observations, &masks, ActionMode::Greedy)?;
        same += equal(policy, here.raw(), there.raw());
        all += here.raw().len();
    }
    Ok(same as f64 / all as f64)
}

/// Fraction of equal actions in f16 and f32, and the largest difference of a probability.
fn f16_agreement(policy: &Policy, seen: &[Vec<f32>]) -> Result<(f64, f32)> {
    let masks = vec![policy.market()?.settings.mask(); EPISODES * policy.metadata().network.agents as usize];
    let [half, single] = [Precision::F16, Precision::F32].map(|precision| policy.with_precision(precision));
    let (half, single) = (half?, single?);
    let (mut of_half, mut of_single) = (half.state(EPISODES)?, single.state(EPISODES)?);
    let (mut same, mut all, mut largest) = (0, 0, 0f32);
    for observations in seen {
        let a = half.act(&mut of_half, observations, &masks, ActionMode::Greedy)?;
        let b = single.act(&mut of_single, observations, &masks, ActionMode::Greedy)?;
        same += equal(policy, a.raw(), b.raw());
        all += a.raw().len();
        let pairs = half.probabilities(&mut of_half).iter().zip(single.probabilities(&mut of_single));
        largest = pairs.map(|(a, b)| (a - b).abs()).fold(largest, f32::max);
    }
    Ok((same as f64 / all as f64, largest))
}

/// The thresholds, in the order of the report.
pub fn thresholds(
    settings: &ValidateSettings,
    checked: &Checked,
    seconds: f64,
) -> [(&'static str, f64, f64, bool); 6] {
    let mean = checked.returns.iter().sum::<f64>() / checked.returns.len() as f64;
    let drawdown = checked.drawdowns.iter().copied().fold(0.0, f64::max);
    let violations = checked.latency.violations as f64 / checked.latency.decisions().max(1) as f64;
    let least = |name, value, limit| (name, value, limit, value >= limit);
    let most = |name, value, limit| (name, value, limit, value <= limit);
    [
        least("mean return", mean, settings.min_return),
        most("largest drawdown", drawdown, settings.max_drawdown),
        most("latency violations", violations, settings.max_violations),
        least("CPU and device agree", checked.device_agreement, settings.min_device_agreement),
        least("f16 and f32 agree", checked.f16_agreement, settings.min_f16_agreement),
        most("seconds", seconds, settings.seconds),
    ]
}
