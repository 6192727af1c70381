//! Shuffled minibatches: the gradient of each is that of one whole update in which only its rows are active.

use super::testing::{ACTIONS, AGENTS, OBS_DIM, Still, floats};
use super::*;
use crate::gpu::Recording;
use crate::mappo::{AdvantageNorm, Algorithm};
use crate::nn::{Activation, Sharing};
use crate::ppo::shuffle;
use crate::random::Stream;

const STEPS: usize = 7;
/// Three quads.
const ENVS: usize = 12;
const ROWS: usize = STEPS * AGENTS * ENVS;
const ITERATION: u32 = 3;

fn config(minibatches: u32, accumulation: u32, change: impl Fn(&mut Config)) -> Config {
    let mut config = Config::default();
    config.ppo.seed = 11;
    config.ppo.num_envs = ENVS as u32;
    config.ppo.rollout_steps = STEPS as u32;
    config.ppo.epochs = 2;
    config.ppo.minibatches = minibatches;
    config.ppo.value_norm = false;
    config.ppo.advantage_norm = AdvantageNorm::Minibatch;
    config.network.hidden = vec![6, 5];
    config.network.activation = Activation::Tanh;
    config.network.chunk_length = 3;
    // Weights stay, so that all minibatches of all epochs can be compared.
    config.optimizer.actor_learning_rate = 0.0;
    config.optimizer.critic_learning_rate = 0.0;
    config.device.accumulation = accumulation;
    change(&mut config);
    config
}

/// A trainer after a made-up rollout, of which only the rows of some steps and environments are active, with its statistics.
fn ready(gpu: &Gpu, config: &Config, active: impl Fn(usize, usize) -> bool) -> (Trainer, Recorder) {
    let trainer = Trainer::new(gpu, &Still::default(), config).unwrap();
    let own = &trainer.buffers.rollout;
    let mut stream = Stream::new(4, 0);
    let mut floats = |count: usize| (0..count).map(|_| stream.normal() as f32).collect::<Vec<_>>();
    let write =
        |buffer: &wgpu::Buffer, at: usize, bytes: &[u8]| gpu.write(buffer, at as u64 * 4, bytes).unwrap();
    write(&own.observations, 0, bytemuck::cast_slice(&floats((STEPS + 1) * AGENTS * ENVS * OBS_DIM)));
    let log_probabilities = floats(ROWS).into_iter().map(|x| -1.2 + 0.2 * x);
    let targets: Vec<f32> = log_probabilities.chain(floats(2 * ROWS)).collect();
    write(&own.targets, 0, bytemuck::cast_slice(&targets));
    write(&own.values, 0, bytemuck::cast_slice(&floats(ROWS)));
    if let Some(recurrent) = &trainer.buffers.recurrent {
        let states: Vec<f32> =
            floats(recurrent.states.size() as usize / 4).into_iter().map(f32::tanh).collect();
        write(&recurrent.states, 0, bytemuck::cast_slice(&states));
    }
    let mut stream = Stream::new(4, 1);
    let mut below = |count: u32| (stream.uniform() * f64::from(count)) as u32;
    let dones: Vec<u32> = (0..STEPS * ENVS).map(|_| u32::from(below(6) == 0)).collect();
    let actions: Vec<u32> = (0..ROWS).map(|_| below(ACTIONS as u32)).collect();
    let masks = (0..ROWS).map(|row| {
        let mask = (below(1 << ACTIONS) | 1 << actions[row]) * u32::from(below(8) > 0);
        if active(row / ENVS / AGENTS, row % ENVS) { mask } else { 0 }
    });
    let dones_and_masks: Vec<u32> = dones.into_iter().chain(masks).collect();
    write(&own.dones_and_masks, 0, bytemuck::cast_slice(&dones_and_masks));
    write(&own.actions, 0, bytemuck::cast_slice(&actions));
    write(&own.iteration, 0, bytemuck::bytes_of(&ITERATION));
    let mut recorder = Recorder::new(gpu);
    // Statistics of the advantages above, and with HAPPO the first factors, but no advantages of the rewards.
    recorder.run(&trainer.update.advantages[1..]).unwrap();
    (trainer, recorder)
}

fn gradient(trainer: &Trainer) -> Vec<f32> {
    floats(trainer, |t| &t.update_buffers.gradient)
}

/// The order of an epoch, computed on the CPU.
fn order(trainer: &Trainer, epoch: u32) -> Vec<u32> {
    let (sizes, seed) = (trainer.sizes, trainer.config.ppo.seed);
    let chunk = sizes.chunk.max(1);
    let shuffle = shuffle::Shuffle {
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32 ^ shuffle::STREAM,
        epoch,
        quads: sizes.envs / 4,
        chunk,
        chunks: sizes.steps.div_ceil(chunk),
        ..shuffle::Shuffle::default()
    };
    shuffle::tests::order(&shuffle, ITERATION)
}

/// The commands of an epoch that shuffle, and those of each minibatch.
fn parts(trainer: &Trainer, epoch: usize) -> Vec<Recording> {
    let mut rest = &trainer.update.epochs[epoch][..];
    let sizes = trainer.sizes;
    // Three dispatches shuffle. The first minibatch begins with one dispatch, all end with the optimizer's; a micro-batch has four, or one in blocks.
    let each = if trainer.kernel_config.blocks.is_some() { 1 } else { 4 };
    let fixed = (rest.len() - 3 - each * sizes.micro_batches() as usize) / sizes.minibatches as usize;
    let micro = |m| sizes.minibatch(m).len().div_ceil(sizes.micro_slots as usize);
    let of_minibatch = |m| usize::from(m == 0) + fixed + each * micro(m);
    let lengths = std::iter::once(3).chain((0..sizes.minibatches).map(of_minibatch));
    let parts = lengths.map(|length| rest.split_off(..length).unwrap().to_vec()).collect();
    assert!(rest.is_empty());
    parts
}

/// Compares the minibatches of all epochs of the first agent step.
fn compare(gpu: &Gpu, config: &Config) {
    let (trainer, mut recorder) = ready(gpu, config, |_, _| true);
    let mut seen = Vec::new();
    for epoch in 0..config.ppo.epochs {
        let order = order(&trainer, epoch);
        let parts = parts(&trainer, epoch as usize);
        recorder.run(&parts[0]).unwrap();
        let words = floats(&trainer, |t| &t.buffers.rollout.dones_and_masks);
        let listed = &words[trainer.sizes.order() as usize..][..order.len()];
        assert!(listed.iter().map(|word| word.to_bits()).eq(order.iter().copied()));
        for m in 0..config.ppo.minibatches {
            let rows: Vec<_> = trainer.sizes.minibatch(m).map(|place| place as usize * ENVS / 4).collect();
            let has = |step: usize, env: usize| rows.iter().any(|row| order[row + env / 4] == step as u32);
            let alone = Config {
                ppo: crate::mappo::PpoConfig {
                    minibatches: 1,
                    advantage_norm: AdvantageNorm::Rollout,
                    ..config.ppo.clone()
                },
                ..config.clone()
            };
            let (one, mut its_recorder) = ready(gpu, &alone, has);
            its_recorder.run(&one.update.epochs[0]).unwrap();
            recorder.run(&parts[m as usize + 1]).unwrap();
            let (got, expected) = (gradient(&trainer), gradient(&one));
            let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
            let apart = expected.iter().zip(&got).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(largest > 1e-3 && apart <= 4e-6 * largest, "epoch {epoch}, {m}: {apart} of {largest}");
            seen.push(got);
        }
    }
    assert!(seen.iter().enumerate().all(|(i, a)| !seen[..i].contains(a)), "no minibatch is another one");
    let steps = floats(&trainer, |t| &t.update_buffers.optimizer)[0];
    assert_eq!(steps as u32, config.ppo.epochs * config.ppo.minibatches, "a step for each");
}

/// Minibatches of 2, 2 and 3 steps, in micro-batches of 2; and two of one and two sequences of three steps, of which the last lists
/// two steps after the end.
#[test]
fn gradients_are_those_of_the_rows_that_the_order_lists() {
    let plain = config(3, 2, |_| {});
    let recurrent = config(2, 1, |config| config.network.recurrent = true);
    let gpu = crate::testing::unchecked_gpu();
    [plain, recurrent].iter().for_each(|config| compare(&gpu, config));
}

/// Also of networks per agent with HAPPO. Its factors follow from evaluations of the rollout in order, whose last sequence is short.
#[test]
fn gradients_and_factors_of_happo_are_those_of_the_rows() {
    let happo = |minibatches, rate| {
        config(minibatches, 1, |config| {
            config.ppo.algorithm = Algorithm::Happo;
            config.network.networks = Sharing::Separate;
            config.network.recurrent = true;
            config.optimizer.actor_learning_rate = rate;
        })
    };
    let gpu = crate::testing::unchecked_gpu();
    compare(&gpu, &happo(2, 0.0));
    let (trainer, mut recorder) = ready(&gpu, &happo(2, 0.01), |_, _| true);
    let (other, mut its_recorder) = ready(&gpu, &happo(1, 0.01), |_, _| true);
    recorder.run(&trainer.update.evaluations[0][0]).unwrap();
    its_recorder.run(&other.update.evaluations[0][0]).unwrap();
    trainer.update.epochs[..2].iter().for_each(|epoch| {
        recorder.run(epoch).unwrap();
    });
    // The other trainer skips the epochs and gets the weights after them.
    let weights = trainer.weights().unwrap();
    gpu.write(&other.buffers.networks.params, 0, bytemuck::cast_slice(&weights)).unwrap();
    its_recorder.run(&other.rollout.prepare).unwrap();
    recorder.run(&trainer.update.evaluations[0][1]).unwrap();
    its_recorder.run(&other.update.evaluations[0][1]).unwrap();
    let factors = |trainer: &Trainer| {
        let statistics = floats(trainer, |t| &t.update_buffers.statistics);
        let stored = trainer.sizes.factors(&trainer.config) as usize;
        // The log-probabilities before the epochs follow.
        statistics[statistics.len() - 2 * stored..][..stored].to_vec()
    };
    let expected = factors(&other);
    assert!(expected.iter().filter(|factor| (**factor - 1.0).abs() > 1e-3).count() > STEPS * ENVS / 2);
    assert_eq!(factors(&trainer), expected);
}

/// With a learning rate, the second minibatch sees the weights after the first.
#[test]
fn every_minibatch_moves_the_weights() {
    let gpu = crate::testing::unchecked_gpu();
    let last = |rate: f64| {
        let config = config(3, 2, |config| config.optimizer.actor_learning_rate = rate);
        let (trainer, mut recorder) = ready(&gpu, &config, |_, _| true);
        recorder.run(&trainer.update.epochs[0]).unwrap();
        gradient(&trainer)
    };
    assert!(last(0.01) != last(0.0));
}
