//! Dispatches, allocations and reproducibility of training.

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::{Class, Counts, Gpu, GpuOptions};
use phalanx::mappo::{Activation, Sharing};
use phalanx::mappo::{Algorithm, Config, Precision, Record, Trainer};
use phalanx::market::{ExtraFeatures, MarketData, Scaling};
use phalanx::random::Stream;

use crate::common;
use crate::testing::{both_classes, skip, unchecked_gpu as gpu};

/// A market of random walks with one instrument per agent.
fn market(gpu: &Gpu, agents: usize) -> Trading {
    let mut stream = Stream::new(5, 2);
    let candles = common::candles(agents, 200, |_, _| 0.01 * stream.normal());
    let scaling = Scaling::Fit(0..200);
    let data = MarketData::new(gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
    let rules = TradingSettings { episode_length: 12, ..Default::default() };
    Trading::new(&data, &rules, &Episodes::Random(data.first_bar()..200)).unwrap()
}

fn config() -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 16;
    config.ppo.epochs = 2;
    config.ppo.iterations = 4;
    config.network.hidden = vec![16];
    config.device.accumulation = 2;
    config
}

/// Recurrent networks use the same activation as in other tests, to share compiled kernels.
fn with(recurrent: bool) -> Config {
    let activation = if recurrent { Activation::Tanh } else { Activation::Relu };
    let mut config = config();
    config.network.recurrent = recurrent;
    config.network.activation = activation;
    config
}

/// Counts of one iteration; asserts that collecting its record submits nothing.
fn sent(trainer: &mut Trainer) -> Counts {
    let before = trainer.counts();
    trainer.submit().unwrap();
    let after = trainer.counts();
    assert!(trainer.collect().unwrap().is_some());
    assert_eq!(trainer.counts(), after, "collecting submits nothing");
    Counts {
        dispatches: after.dispatches - before.dispatches,
        passes: after.passes - before.passes,
        submits: after.submits - before.submits,
        readbacks: after.readbacks - before.readbacks,
    }
}

#[test]
fn dispatches_per_step_and_micro_batch_are_few() {
    let gpu = gpu().with_class(Class::Software);
    let environment = market(&gpu, 2);
    // With `observation_norm`, one more dispatch per step and at the end, and one that updates the statistics.
    for (recurrent, observation_norm) in [(false, false), (true, false), (false, true)] {
        let mut config = with(recurrent);
        config.network.observation_norm = observation_norm;
        few_dispatches(&gpu, &environment, &config, if observation_norm { 4 } else { 3 });
    }
}

/// On GPUs with small networks 32 steps of acting are one dispatch, the gradient of a minibatch another, the optimizer's step three.
#[test]
fn an_iteration_in_blocks_is_27_dispatches() {
    let gpu = gpu().with_class(Class::Hardware);
    let environment = market(&gpu, 2);
    let dispatches = |accumulation: u32, epochs: u32, steps: u32| {
        let mut config = with(false);
        config.ppo.rollout_steps = steps;
        config.ppo.epochs = epochs;
        config.device.accumulation = accumulation;
        sent(&mut Trainer::new(&gpu, &environment, &config).unwrap()).dispatches
    };
    let update = |accumulation| dispatches(accumulation, 2, 16) - dispatches(accumulation, 1, 16);
    assert_eq!([1, 4].map(update), [4, 4]);
    // Up to 32 steps of a rollout are one dispatch.
    assert_eq!(dispatches(4, 1, 33) - dispatches(4, 1, 32), 1);
    // Beside acting and an update: values, advantages, two for their statistics, the beginning of the first minibatch, two for the record.
    assert_eq!(dispatches(4, 1, 32), 1 + 4 + 7);
    assert_eq!(dispatches(4, 4, 128), 4 + 4 * 4 + 7);
}

fn few_dispatches(gpu: &Gpu, environment: &Trading, config: &Config, a_step: u64) {
    let count = |steps: u32, epochs: u32, accumulation: u32| {
        // Recurrent critics process one chunk per dispatch: a chunk of the whole rollout makes only acting grow with the steps.
        let chunk_length = if accumulation == 1 { 64 } else { 4 };
        let mut config = config.clone();
        config.ppo.rollout_steps = steps;
        config.ppo.epochs = epochs;
        config.network.chunk_length = chunk_length;
        config.device.accumulation = accumulation;
        let mut trainer = Trainer::new(gpu, environment, &config).unwrap();
        let in_blocks = trainer.kernel_config().blocks.is_some();
        assert_eq!(trainer.sizes().micro_batches(), if in_blocks { 1 } else { accumulation });
        let first = sent(&mut trainer);
        assert_eq!(sent(&mut trainer), first, "every iteration submits the same");
        assert_eq!(first.readbacks, 1);
        assert!(first.submits <= u64::from(epochs) + 2, "{first:?}");
        first.dispatches
    };
    let base = count(16, 1, 1);
    // Twice the steps in a single micro-batch: only acting grows.
    let per_step = (count(32, 1, 1) - base) as f64 / 16.0;
    assert!(per_step > 0.0 && per_step <= a_step as f64, "{per_step} dispatches per environment step");
    // A further epoch is one update of one micro-batch: forward pass, losses, backward pass, gradients of the weights, and three for the
    // optimizer.
    let update = count(16, 2, 1) - base;
    assert!(update > 0 && update <= 7, "{update} dispatches for an update of one micro-batch");
    let update = count(16, 2, 4) - count(16, 1, 4);
    assert!(update <= 4 * 4 + 3, "{update} dispatches for an update of four micro-batches");
    // The rest: values, advantages, record. Statistics of the rollout are two dispatches each: sums of many workgroups and their join.
    assert!(base <= a_step * 16 + 10 + 10, "{base} dispatches in an iteration");
}

#[test]
fn dispatches_do_not_depend_on_agents_layers_and_networks() {
    let gpu = gpu().with_class(Class::Software);
    let (two, five) = (market(&gpu, 2), market(&gpu, 5));
    let shapes: [(&Trading, Vec<u32>, Sharing); 4] = [
        (&two, vec![8], Sharing::Shared),
        (&two, vec![8, 8, 8], Sharing::Shared),
        (&two, vec![8], Sharing::Separate),
        (&five, vec![8, 12, 8], Sharing::Separate),
    ];
    let counts = shapes.map(|(environment, hidden, networks)| {
        let mut config = config();
        config.network.hidden = hidden;
        config.network.networks = networks;
        sent(&mut Trainer::new(&gpu, environment, &config).unwrap())
    });
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

/// Bytes in use on the device, if the backend reports them, after all submitted work has finished.
fn in_use(gpu: &Gpu) -> Option<u64> {
    gpu.wait().unwrap();
    gpu.device().generate_allocator_report().map(|report| report.total_allocated_bytes)
}

#[test]
fn training_allocates_exactly_the_plan() {
    use Algorithm::{Happo, Mappo};
    for (hidden, networks, precision, recurrent, algorithm) in [
        (vec![64], Sharing::Shared, Precision::F32, false, Mappo),
        (vec![64, 64, 64], Sharing::Shared, Precision::F16, false, Mappo),
        (vec![64], Sharing::Separate, Precision::F16, true, Mappo),
        (vec![64, 64, 64], Sharing::Separate, Precision::F32, false, Happo),
    ] {
        // A separate device, because the report covers everything allocated on it.
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let environment = market(&gpu, 3);
        let before = in_use(&gpu);
        let mut config = with(recurrent);
        config.ppo.num_envs = 32;
        config.ppo.algorithm = algorithm;
        config.network.hidden = hidden;
        config.network.networks = networks;
        config.device.precision = precision;
        let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
        let planned = trainer.plan().bytes();
        sent(&mut trainer);
        let (created, used) = (gpu.buffers_created(), in_use(&gpu));
        match (before, used) {
            (Some(before), Some(used)) => {
                let allocated = used - before;
                let ratio = allocated as f64 / planned as f64;
                assert!((ratio - 1.0).abs() < 0.05, "planned {planned}, allocated {allocated}: {config:?}");
            }
            _ => skip("the backend does not report what is allocated"),
        }
        for _ in 0..5 {
            sent(&mut trainer);
        }
        assert_eq!(gpu.buffers_created(), created, "{config:?}");
        assert_eq!(in_use(&gpu), used, "{config:?}");
    }
}

#[test]
fn at_most_two_iterations_are_in_flight() {
    let gpu = gpu();
    let environment = market(&gpu, 2);
    let mut trainer = Trainer::new(&gpu, &environment, &config()).unwrap();
    assert!(trainer.collect().unwrap().is_none(), "nothing was sent");
    trainer.submit().unwrap();
    trainer.submit().unwrap();
    let before = trainer.counts();
    let error = trainer.submit().unwrap_err().to_string();
    assert!(error.contains("iterations in flight") && error.contains("at most 2"), "{error}");
    assert_eq!(trainer.counts(), before, "the rejected iteration submits nothing");
    for iteration in [1, 2] {
        let progress = trainer.collect().unwrap().unwrap();
        assert_eq!((progress.iteration, progress.env_steps), (iteration, u64::from(iteration) * 8 * 16));
    }
    assert!(trainer.collect().unwrap().is_none());
}

#[test]
fn accumulated_gradients_equal_those_of_the_whole_rollout() {
    accumulates(&gpu().with_class(Class::Software), 16);
    // With the kernels of GPUs, smaller networks have one micro-batch.
    accumulates(&gpu().with_class(Class::Hardware), 130);
}

fn accumulates(gpu: &Gpu, hidden: u32) {
    let environment = market(gpu, 3);
    let change = |accumulation: u32, seed: u64| -> Vec<f64> {
        let mut config = config();
        config.network.hidden = vec![hidden];
        config.ppo.rollout_steps = 10;
        config.ppo.epochs = 1;
        config.ppo.seed = seed;
        config.device.accumulation = accumulation;
        let mut trainer = Trainer::new(gpu, &environment, &config).unwrap();
        // Ten steps in four micro-batches: three, three, three and one.
        assert_eq!(trainer.sizes().micro_batches(), accumulation);
        let before = trainer.weights().unwrap();
        sent(&mut trainer);
        let after = trainer.weights().unwrap();
        after.iter().zip(&before).map(|(after, before)| f64::from(*after) - f64::from(*before)).collect()
    };
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    // AdamW's first step divides each gradient by its magnitude, so that even a rounding error moves its weight by up to the
    // learning rate. Therefore the test compares the norm of all changes instead of single weights.
    let distance =
        |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(a);
    let whole = change(1, 1);
    assert!(norm(&whole) > 1e-3 && norm(&whole).is_finite());
    for accumulation in [2, 4, 5, 10] {
        let off = distance(&whole, &change(accumulation, 1));
        eprintln!("accumulation {accumulation}: {off:.2e}");
        assert!(off < 1e-3, "accumulation {accumulation}: {off:.2e} of the change");
    }
    assert!(distance(&whole, &change(1, 2)) > 0.1, "another rollout changes the weights differently");
}

#[test]
fn shared_and_separate_networks_are_reproducible_and_finite() {
    let gpu = gpu();
    let environment = market(&gpu, 3);
    for (networks, precision) in [
        (Sharing::Shared, Precision::F32),
        (Sharing::Separate, Precision::F32),
        (Sharing::Shared, Precision::F16),
        (Sharing::Separate, Precision::F16),
    ] {
        let train = |seed: u64| {
            let mut config = config();
            config.ppo.seed = seed;
            config.network.networks = networks;
            config.device.precision = precision;
            let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
            let before = trainer.weights().unwrap();
            let mut records = Vec::new();
            trainer
                .train(|progress| -> phalanx::Result<()> {
                    records.push(progress.record);
                    Ok(())
                })
                .unwrap();
            (before, trainer.weights().unwrap(), records)
        };
        let (before, weights, records) = train(1);
        assert_eq!(records.len(), 4);
        for record in &records {
            let numbers: [f32; size_of::<Record>() / 4] = bytemuck::cast(*record);
            assert!(numbers.iter().all(|number| number.is_finite()), "{record:?}");
            assert!(record.entropy > 0.5 && record.entropy <= 3f32.ln() + 1e-4, "{record:?}");
            assert!(
                record.actor_norm > 0.0 && record.critic_norm > 0.0 && record.skipped == 0.0,
                "{record:?}"
            );
        }
        // Rollouts of 16 steps, episodes of 12: every environment ends at least one episode per iteration.
        assert!(records.iter().all(|record| record.episodes >= 8.0), "{records:?}");
        assert!(weights.iter().all(|weight| weight.is_finite()));
        assert!(weights != before);

        let (again_before, again, again_records) = train(1);
        assert_eq!(bytes(&before), bytes(&again_before));
        assert_eq!(bytes(&weights), bytes(&again));
        assert_eq!(bytes(&records), bytes(&again_records));
        assert_ne!(bytes(&weights), bytes(&train(2).1));
    }
}

/// With checks on, out-of-bounds indices are clamped: equal bytes without checks prove that none was out of bounds.
#[test]
fn checks_change_no_byte_in_either_class() {
    for checked in both_classes() {
        let [with, without] = [true, false].map(|checks| {
            let gpu = checked.with_checks(checks);
            let environment = market(&gpu, 3);
            let mut config = config();
            config.ppo.iterations = 2;
            let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
            trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
            trainer.weights().unwrap()
        });
        assert_eq!(bytes(&with), bytes(&without), "{:?}", checked.class());
        assert!(with.iter().all(|weight| weight.is_finite()));
    }
}

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}
