//! Training: memory, reproducibility, accumulation, and plans for cards of several sizes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::{Budget, Class, Gpu};
use phalanx::mappo::{Config, Precision, Sizes, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};

use super::Promise;
use crate::memory;

/// Cards in GiB.
const CARDS: [u64; 4] = [4, 8, 12, 16];

/// Longest iteration that a card's largest batch may take here.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn measure(gpu: &Gpu, candles: &Candles, quick: bool) -> Result<Vec<Promise>> {
    let train = candles.bars() / 2;
    let data = MarketData::new(gpu, candles, &ExtraFeatures::default(), &Scaling::Fit(0..train))?;
    let bars = data.first_bar()..train;
    let environment = Trading::new(&data, &TradingSettings::default(), &Episodes::Random(bars))?;
    let (at_defaults, rate) = defaults(gpu, &environment)?;
    let mut promises = vec![half_precision(gpu, &environment)?, accumulation(gpu, &environment)?];
    promises.extend(at_defaults);
    promises.push(repeated(gpu, &environment)?);
    promises.push(cards(gpu, &environment, rate, quick)?);
    promises.push(Promise::not_measured(
        "An update equals that of the reference's own code",
        "weights within 5e-7 of a tensor's largest",
        "the fixture needs the crate's tests: `make test-updates`",
        1,
    ));
    Ok(promises)
}

fn small() -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 16;
    config.ppo.rollout_steps = 32;
    config.ppo.epochs = 1;
    config.ppo.iterations = 1;
    config
}

/// Bytes of activations, observations and working weights, as the allocator reports them under their labels, or by the plan.
fn allocated(gpu: &Gpu, environment: &Trading, precision: Precision) -> Result<(u64, bool)> {
    let labels = ["activations", "observations", "working weights"];
    let mut config = small();
    config.ppo.num_envs = 1024;
    config.device.precision = precision;
    let trainer = Trainer::new(gpu, environment, &config)?;
    let planned = trainer.plan().entries().iter().filter(|(name, _)| labels.contains(name));
    let planned = planned.map(|(_, bytes)| bytes).sum();
    let reported = gpu.device().generate_allocator_report().map(|report| {
        let own = report.allocations.iter().filter(|own| labels.contains(&own.name.as_str()));
        own.map(|own| own.size).sum::<u64>()
    });
    Ok(reported.filter(|bytes| *bytes > 0).map_or((planned, false), |bytes| (bytes, true)))
}

fn half_precision(gpu: &Gpu, environment: &Trading) -> Result<Promise> {
    let (single, by_allocator) = allocated(gpu, environment, Precision::F32)?;
    let (half, _) = allocated(gpu, environment, Precision::F16)?;
    let share = half as f64 / single as f64;
    let source = if by_allocator { "the allocator" } else { "the plan: this backend reports no allocations" };
    Ok(Promise::new(
        "f16 halves activations, observations and working weights",
        "51 % of the bytes in f32, alignment included",
        format!("{:.1} % ({} and {} KiB, by {source})", 100.0 * share, half >> 10, single >> 10),
        share <= 0.51,
        1,
    ))
}

/// Weights after one iteration, and the number of micro-batches.
fn weights(gpu: &Gpu, environment: &Trading, config: &Config) -> Result<(Vec<f32>, u32)> {
    let mut trainer = Trainer::new(gpu, environment, config)?;
    let micro_batches = trainer.sizes().micro_batches();
    trainer.train(|_| ())?;
    Ok((trainer.weights()?, micro_batches))
}

fn accumulation(gpu: &Gpu, environment: &Trading) -> Result<Promise> {
    let mut config = small();
    if gpu.class() == Class::Hardware {
        // Networks in blocks have one micro-batch.
        config.network.hidden = vec![160];
    }
    // Plain gradient descent would show a difference as it is; AdamW divides it by itself.
    config.device.accumulation = 1;
    let (whole, one) = weights(gpu, environment, &config)?;
    config.device.accumulation = 8;
    let (parts, eight) = weights(gpu, environment, &config)?;
    ensure!([one, eight] == [1, 8], "{one} and {eight} micro-batches instead of 1 and 8");
    let largest = |values: &[f32]| values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let difference: Vec<f32> = whole.iter().zip(&parts).map(|(whole, part)| whole - part).collect();
    let step = f64::from(config.optimizer.actor_learning_rate as f32);
    let relative = f64::from(largest(&difference)) / step;
    Ok(Promise::new(
        "Gradients of 8 micro-batches equal those of the whole batch",
        "weights within 1 % of a step of the optimizer",
        format!("{:.1e}, {:.3} % of a step", largest(&difference), 100.0 * relative),
        relative < 0.01,
        1,
    ))
}

/// Allocations and readbacks of an iteration, and memory at the default settings. Also returns the environment steps a second.
fn defaults(gpu: &Gpu, environment: &Trading) -> Result<(Vec<Promise>, f64)> {
    let mut config = Config::default();
    config.ppo.iterations = 3;
    let mut trainer = Trainer::new(gpu, environment, &config)?;
    let iteration = |trainer: &mut Trainer| -> Result<()> {
        trainer.submit()?;
        trainer.collect()?.context("the iteration was not completed")?;
        Ok(())
    };
    iteration(&mut trainer)?;
    let (buffers, counts, started) = (gpu.buffers_created(), trainer.counts(), Instant::now());
    iteration(&mut trainer)?;
    let seconds = started.elapsed().as_secs_f64();
    let (created, after) = (gpu.buffers_created() - buffers, trainer.counts());
    let readbacks = after.readbacks - counts.readbacks;
    let steps = f64::from(trainer.sizes().envs) * f64::from(trainer.sizes().steps);
    let device = memory::allocated(gpu);
    let bytes = device.unwrap_or(trainer.plan().bytes());
    let process =
        memory::peak_of_process().map_or_else(|| "unknown".into(), |peak| format!("{} MiB", peak >> 20));
    let promises = vec![
        Promise::new(
            "An iteration allocates nothing and reads nothing back but its metrics",
            "0 buffers, 1 readback, which nobody waits for",
            format!(
                "{created} buffers, {readbacks} readbacks in {} dispatches",
                after.dispatches - counts.dispatches
            ),
            created == 0 && readbacks == 1,
            1,
        ),
        Promise::new(
            "Memory on the device at the default settings",
            "under 4 GiB",
            format!("{} MiB ({} at most in the process)", bytes >> 20, process),
            bytes < 4 << 30,
            2,
        ),
    ];
    Ok((promises, steps / seconds))
}

fn repeated(gpu: &Gpu, environment: &Trading) -> Result<Promise> {
    let config = small();
    let [(one, _), (other, _)] = [weights(gpu, environment, &config)?, weights(gpu, environment, &config)?];
    let different = one.iter().zip(&other).filter(|(one, other)| one.to_bits() != other.to_bits()).count();
    Ok(Promise::new(
        "Two trainings of one seed give the same bytes",
        "0 weights differ",
        format!("{different} of {} differ", one.len()),
        different == 0,
        2,
    ))
}

/// Plans the largest batch for every card and trains it for an iteration, where that takes no longer than [`PATIENCE`]. `rate` are the
/// environment steps a second.
fn cards(gpu: &Gpu, environment: &Trading, rate: f64, quick: bool) -> Result<Promise> {
    let promise = "Plans for cards of 4, 8, 12 and 16 GiB fit, and train";
    let target = "an iteration of the largest batch of each";
    let (mut text, mut kept, mut measured) = (Vec::new(), true, true);
    for card in CARDS {
        let mut config = Config::default();
        config.ppo.num_envs = 1 << 20;
        config.ppo.epochs = 1;
        config.ppo.iterations = 1;
        config.device.shrink_envs = true;
        config.device.memory_budget_mb = Some(card << 10);
        let budget = Budget::of(gpu, config.device.memory_budget_mb);
        let layout = config.layout(environment)?;
        let Ok((sizes, kernel_config)) = Sizes::decide(gpu, &config, environment, &layout, &budget) else {
            (kept, measured) = (false, true);
            text.push(format!("{card} GiB: no plan"));
            continue;
        };
        let bytes = sizes.plan(environment, &layout, &config, &kernel_config).bytes();
        kept &= bytes <= card << 30;
        let plan = format!("{card} GiB: {} environments, {} MiB", sizes.envs, bytes >> 20);
        let expected = f64::from(sizes.envs) * f64::from(sizes.steps) / rate;
        let too_long = expected > PATIENCE.as_secs_f64();
        let room = gpu.memory().available.saturating_sub(gpu.memory().used);
        if quick || too_long || bytes > room {
            measured = false;
            let why = match (quick, too_long) {
                (true, _) => "left out by --quick".to_string(),
                (_, true) => format!("an iteration would take {expected:.0} s"),
                _ => format!("{} MiB are free", room >> 20),
            };
            text.push(format!("{plan}, planned only ({why})"));
            continue;
        }
        let trained = Trainer::new(gpu, environment, &config).and_then(|mut trainer| trainer.train(|_| ()));
        kept &= trained.is_ok();
        text.push(match trained {
            Ok(_) => format!("{plan}, trained"),
            Err(error) => format!("{plan}: {error}"),
        });
    }
    let text = text.join("; ");
    let class = if gpu.class() == Class::Software { " (a software adapter)" } else { "" };
    Ok(match (measured, kept) {
        (true, kept) => Promise::new(promise, target, text, kept, 2),
        (false, false) => Promise::new(promise, target, text, false, 2),
        (false, true) => Promise::not_measured(promise, target, text + class, 2),
    })
}
