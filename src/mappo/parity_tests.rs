//! The update compared with PyTorch (`tests/fixtures/learning.py`): forward pass, losses, gradients, clipping and AdamW, as the
//! trainer records them.

use serde::Deserialize;

use super::testing::{
    ACTIONS, AGENTS, ENVS, OBS_DIM, Still, Tensors, floats, near, put_weights, tensor_error,
};
use super::{Config, Trainer};
use crate::gpu::{Class, Recorder};
use crate::nn::{Activation, Precision};
use crate::ppo::scalars;

const SLOTS: usize = 2;
const ROWS: usize = SLOTS * AGENTS * ENVS;

#[derive(Deserialize)]
struct Step {
    policy: f64,
    value: f64,
    entropy: f64,
    // None: not finite.
    actor_norm: Option<f64>,
    critic_norm: Option<f64>,
    #[serde(default)]
    scale: f64,
}

#[derive(Deserialize)]
struct Case {
    activation: Activation,
    hidden: Vec<u32>,
    params: Tensors,
    observations: Vec<f64>,
    actions: Vec<u32>,
    masks: Vec<u32>,
    old_log_probabilities: Vec<f64>,
    advantages: Vec<f64>,
    returns: Vec<f64>,
    old_values: Vec<f64>,
    logits: Vec<f64>,
    values: Vec<f64>,
    gradients: Tensors,
    params_after_1: Tensors,
    params_after_10: Tensors,
    steps: Vec<Step>,
    amp_steps: Vec<Step>,
    amp_params_after_10: Tensors,
}

#[derive(Deserialize)]
struct Fixture {
    networks: Vec<Case>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/fixtures/learning.json");
    serde_json::from_str::<Fixture>(text).unwrap().networks
}

/// A trainer whose buffers hold the rollout of a case.
struct Run {
    trainer: Trainer,
    recorder: Recorder,
}

/// Losses and gradient norms of one update.
struct Seen {
    policy: f64,
    value: f64,
    entropy: f64,
    norms: [f64; 2],
}

impl Run {
    fn new(case: &Case, precision: Precision, accumulation: u32) -> Self {
        let gpu = crate::testing::unchecked_gpu();
        let mut config = Config::default();
        config.network.input_norm = true;
        config.ppo.num_envs = ENVS as u32;
        config.ppo.rollout_steps = (case.observations.len() / (AGENTS * OBS_DIM * ENVS)) as u32;
        config.ppo.epochs = 1;
        config.ppo.huber_delta = 1.0;
        config.ppo.value_norm = false;
        config.network.hidden = case.hidden.clone();
        config.network.activation = case.activation;
        config.optimizer.max_grad_norm = 0.5;
        config.optimizer.actor_learning_rate = 3e-3;
        config.optimizer.critic_learning_rate = 3e-3;
        config.optimizer.learning_rate_decay = false;
        config.optimizer.weight_decay = 1e-2;
        config.device.accumulation = accumulation;
        config.device.precision = precision;
        let trainer = Trainer::new(&gpu, &Still::default(), &config).unwrap();
        let mut recorder = Recorder::new(&gpu);
        let f32s = |of: &[f64]| of.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let write = |buffer: &wgpu::Buffer, at: u64, bytes: &[u8]| {
            gpu.write(buffer, at, bytes).unwrap();
        };
        put_weights(&trainer, &case.params);
        // The fixture has features before agents.
        let observations: Vec<f32> = (0..case.observations.len())
            .map(|i| {
                let (env, feature) = (i % ENVS, i / ENVS % OBS_DIM);
                let (agent, slot) = (i / ENVS / OBS_DIM % AGENTS, i / ENVS / OBS_DIM / AGENTS);
                case.observations[((slot * OBS_DIM + feature) * AGENTS + agent) * ENVS + env] as f32
            })
            .collect();
        write(
            &trainer.buffers.rollout.observations,
            0,
            &crate::nn::synthetic_pass::stored(&observations, precision),
        );
        let ends = u64::from(trainer.sizes().steps) * ENVS as u64;
        write(&trainer.buffers.rollout.dones_and_masks, ends * 4, bytemuck::cast_slice(&case.masks));
        write(&trainer.buffers.rollout.actions, 0, bytemuck::cast_slice(&case.actions));
        let targets = [&case.old_log_probabilities, &case.advantages, &case.returns].map(|x| f32s(x));
        write(&trainer.buffers.rollout.targets, 0, bytemuck::cast_slice(&targets.concat()));
        write(&trainer.buffers.rollout.values, 0, bytemuck::cast_slice(&f32s(&case.old_values)));
        // Advantages that are not normalised: mean 0, scale 1.
        let moments = [0f32, 1.0];
        write(
            &trainer.buffers.rollout.scalars,
            scalars::ADVANTAGE_MEAN as u64 * 4,
            bytemuck::cast_slice(&moments),
        );
        let share = 1.0 / trainer.sizes().rows() as f32;
        write(&trainer.buffers.rollout.scalars, scalars::ROW_SHARE as u64 * 4, bytemuck::bytes_of(&share));
        write(
            &trainer.buffers.rollout.scalars,
            u64::from(scalars::share(1, AGENTS as u32, 0, 0)) * 4,
            bytemuck::cast_slice(&[share; AGENTS]),
        );
        recorder.run(&trainer.rollout.prepare).unwrap();
        Self { trainer, recorder }
    }

    fn floats(&self, buffer: impl Fn(&Trainer) -> &wgpu::Buffer) -> Vec<f32> {
        floats(&self.trainer, buffer)
    }

    fn update(&mut self) -> Seen {
        self.recorder.run(&self.trainer.update.epochs[0]).unwrap();
        let statistics = self.floats(|t| &t.update_buffers.statistics);
        let sums = |i: usize| {
            let groups = statistics.chunks_exact(8).map(|group| f64::from(group[i]));
            groups.sum::<f64>() / ROWS as f64
        };
        let optimizer = self.floats(|t| &t.update_buffers.optimizer);
        let norms = [f64::from(optimizer[1]), f64::from(optimizer[9])];
        Seen { policy: sums(0), value: sums(1), entropy: sums(2), norms }
    }

    fn compare(
        &self,
        what: &str,
        buffer: impl Fn(&Trainer) -> &wgpu::Buffer,
        expected: &Tensors,
        tolerance: f64,
    ) {
        let error = tensor_error(&self.trainer, buffer, expected);
        assert!(error < tolerance, "{what}: {error:.1e}");
    }
}

#[test]
fn ten_updates_are_those_of_pytorch() {
    for case in cases() {
        // In one micro-batch, and as the sum of two.
        for accumulation in [1, 2] {
            let name = format!("{:?}, {accumulation} micro-batches", case.activation);
            let mut run = Run::new(&case, Precision::F32, accumulation);
            for (number, step) in case.steps.iter().enumerate() {
                let seen = run.update();
                let what = |of: &str| format!("{name}, step {number}: {of}");
                near(&what("policy loss"), seen.policy, step.policy, 1e-5);
                near(&what("value loss"), seen.value, step.value, 1e-5);
                near(&what("entropy"), seen.entropy, step.entropy, 1e-5);
                near(&what("actor's norm"), seen.norms[0], step.actor_norm.unwrap(), 1e-4);
                near(&what("critic's norm"), seen.norms[1], step.critic_norm.unwrap(), 1e-4);
                if number == 0 {
                    // In blocks the outputs stay in workgroup memory.
                    if accumulation == 1 && run.trainer.kernel_config.blocks.is_none() {
                        let heads = run.floats(|t| &t.buffers.networks.heads);
                        let stride = heads.len() / (ACTIONS + 1);
                        let rows = |i: usize| heads[i * stride..i * stride + ROWS].to_vec();
                        let logits = (0..ACTIONS).flat_map(rows).zip(&case.logits);
                        let values = rows(ACTIONS).into_iter().zip(&case.values);
                        logits
                            .chain(values)
                            .for_each(|(got, expected)| near(&what("head"), f64::from(got), *expected, 1e-5));
                    }
                    run.compare(&what("gradient"), |t| &t.update_buffers.gradient, &case.gradients, 1e-5);
                    run.compare(&what("weights"), |t| &t.buffers.networks.params, &case.params_after_1, 1e-5);
                }
            }
            run.compare(
                &format!("{name}: weights"),
                |t| &t.buffers.networks.params,
                &case.params_after_10,
                1e-4,
            );
        }
    }
}

/// PyTorch rounds products, phalanx rounds stored values: results differ, and the errors have the same size. The overflows of ReLU
/// and SiLU in the fixture come from gradients of weights, which are never f16 here.
#[test]
fn ten_updates_in_f16_follow_those_of_autocast() {
    let mut compared = 0;
    for case in cases() {
        if case.amp_steps.iter().any(|step| step.scale != 65_536.0) {
            continue;
        }
        compared += 1;
        let name = format!("{:?}", case.activation);
        let mut run = Run::new(&case, Precision::F16, 1);
        for (number, step) in case.amp_steps.iter().enumerate() {
            let seen = run.update();
            let what = |of: &str| format!("{name}, step {number}: {of}");
            near(&what("policy loss"), seen.policy, step.policy, 5e-3);
            near(&what("value loss"), seen.value, step.value, 5e-3);
            near(&what("entropy"), seen.entropy, step.entropy, 5e-3);
            near(&what("actor's norm"), seen.norms[0], step.actor_norm.unwrap(), 2e-2);
            near(&what("critic's norm"), seen.norms[1], step.critic_norm.unwrap(), 2e-2);
            assert_eq!(
                run.floats(|t| &t.buffers.rollout.scalars)[scalars::LOSS_SCALE],
                65_536.0,
                "no step overflowed"
            );
        }
        run.compare(
            &format!("{name}: weights"),
            |t| &t.buffers.networks.params,
            &case.amp_params_after_10,
            2e-2,
        );
    }
    assert_eq!(compared, 2, "tanh and GELU");
}

/// Single weights may differ, because the kink of ReLU and the first steps of Adam depend on a sign; the change as a whole does not.
#[test]
fn ten_updates_in_f16_are_those_in_f32_within_rounding() {
    for case in cases() {
        let change = |precision| -> (f32, Vec<f64>) {
            let mut run = Run::new(&case, precision, 1);
            let before = run.floats(|t| &t.buffers.networks.params);
            for _ in 0..10 {
                run.update();
            }
            let scale = run.floats(|t| &t.buffers.rollout.scalars)[scalars::LOSS_SCALE];
            let after = run.floats(|t| &t.buffers.networks.params);
            let change = after.iter().zip(&before).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
            (scale, change)
        };
        let ((_, whole), (scale, half)) = (change(Precision::F32), change(Precision::F16));
        assert!(half.iter().all(|change| change.is_finite()));
        if case.activation == Activation::Silu {
            // Its gradients first overflow, as in PyTorch: a step is skipped, and the results diverge.
            assert_eq!(scale, 32_768.0);
            continue;
        }
        assert_eq!(scale, 65_536.0, "no step overflowed");
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let apart: Vec<f64> = whole.iter().zip(&half).map(|(a, b)| a - b).collect();
        let share = norm(&apart) / norm(&whole);
        println!("{:?}: {share:.1e} of the change", case.activation);
        assert!(share < 0.15, "{:?}: {share:.1e} of the change", case.activation);
    }
}

/// The rollout of the case repeated `times` times, with other advantages each time.
fn longer(case: &Case, times: usize) -> Case {
    let mut long = cases().remove(1);
    let again = |of: &[f64]| of.repeat(times);
    long.observations = again(&case.observations);
    (long.actions, long.masks) = (case.actions.repeat(times), case.masks.repeat(times));
    long.old_log_probabilities = again(&case.old_log_probabilities);
    (long.returns, long.old_values) = (again(&case.returns), again(&case.old_values));
    let varied = case.advantages.iter().cycle().take(times * ROWS).enumerate();
    long.advantages = varied.map(|(i, a)| a * (1.0 + (i % 17) as f64 / 20.0)).collect();
    long
}

/// k micro-batches give the gradient of the whole batch up to rounding, since the order of the sums differs. The same k gives the same
/// bits.
#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    let case = longer(&cases().remove(1), 8);
    for precision in [Precision::F32, Precision::F16] {
        let gradient = |accumulation: u32| {
            // In blocks a minibatch is one micro-batch.
            let mut run = Run::new(&case, precision, accumulation);
            run.update();
            let slots = run.trainer.sizes().steps;
            (run.trainer.sizes().micro_batches(), slots, run.floats(|t| &t.update_buffers.gradient))
        };
        let (_, slots, whole) = gradient(1);
        assert_eq!(slots, 16);
        let scale = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
        // 3 and 5 leave a last micro-batch of fewer slots.
        for accumulation in [2, 3, 4, 5, 8, 16] {
            let (count, _, parts) = gradient(accumulation);
            let in_blocks = crate::testing::unchecked_gpu().class() == Class::Hardware;
            assert!(if in_blocks { count == 1 } else { count > 1 && count <= accumulation });
            let apart = whole.iter().zip(&parts).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(apart <= 2e-6 * scale, "{precision:?}, {accumulation}: {apart} of {scale}");
            let bits = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&parts), bits(&gradient(accumulation).2));
        }
    }
}
