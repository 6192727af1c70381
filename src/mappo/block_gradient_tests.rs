//! The gradient in one dispatch, a block of rows at a time, is that of one kernel after the other.

use super::testing::floats;
use super::*;
use crate::env::{EnvRecording, RolloutBuffers, Spec};
use crate::gpu::{Budget, Class, Plan};
use crate::mappo::Algorithm;
use crate::nn::synthetic_pass::stored;
use crate::nn::{Activation, CriticInput, Precision, Sharing};
use crate::random::Stream;

/// An environment whose steps do nothing.
struct Made {
    spec: Spec,
    choices: Vec<u32>,
}

impl Environment for Made {
    fn spec(&self) -> Spec {
        self.spec
    }
    fn continuous(&self) -> bool {
        self.choices.is_empty()
    }
    fn choices(&self) -> Vec<u32> {
        if self.choices.is_empty() { vec![self.spec.actions] } else { self.choices.clone() }
    }
    fn truncations(&self, _: u32) -> u32 {
        0
    }
    fn plan(&self, _: u32, _: u32) -> Plan {
        Plan::new()
    }
    fn record(&self, _: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        Ok(EnvRecording { reset: vec![], steps: vec![vec![]; rollout.steps as usize], state: vec![] })
    }
}

/// Networks and rollout of a comparison.
struct Case {
    made: Made,
    envs: u32,
    steps: u32,
    change: fn(&mut Config),
    tolerance: f32,
}

fn made(agents: u32, obs_dim: u32, actions: u32, choices: &[u32]) -> Made {
    Made { spec: Spec { agents, obs_dim, actions }, choices: choices.to_vec() }
}

/// The gradient of the first update on a made-up rollout, the sums of the losses, and whether they were computed in blocks. Minibatches are
/// cut into `parts` micro-batches or, of few steps, fewer.
fn update(gpu: &Gpu, case: &Case, parts: u32) -> (Vec<f32>, [f32; 5], bool) {
    let mut config = Config::default();
    config.ppo.seed = 5;
    config.ppo.num_envs = case.envs;
    config.ppo.rollout_steps = case.steps;
    config.ppo.epochs = 1;
    (case.change)(&mut config);
    let layout = config.layout(&case.made).unwrap();
    let budget = Budget::of(gpu, None);
    let (sizes, kernel_config) = Sizes::decide(gpu, &config, &case.made, &layout, &budget).unwrap();
    // Otherwise only so many rows that a slow GPU would take seconds are cut.
    let largest = (0..sizes.minibatches).map(|m| sizes.minibatch(m).len() as u32).max().unwrap();
    let sizes = Sizes { micro_slots: largest.div_ceil(parts), ..sizes };
    assert!(sizes.micro_batches() > sizes.minibatches || parts == 1);
    let trainer = Trainer::planned(gpu, &case.made, &config, layout, (sizes, kernel_config)).unwrap();
    let own = &trainer.buffers.rollout;
    let spec = case.made.spec;
    let rows = (spec.agents * case.envs * case.steps) as usize;
    let mut stream = Stream::new(6, 0);
    let mut normal = |count: usize| (0..count).map(|_| stream.normal() as f32).collect::<Vec<_>>();
    let observations = normal(rows * spec.obs_dim as usize);
    gpu.write(&own.observations, 0, &stored(&observations, config.device.precision)).unwrap();
    let log_probabilities = normal(rows).into_iter().map(|x| 0.3 * x - 1.2);
    let targets: Vec<f32> = log_probabilities.chain(normal(2 * rows)).collect();
    gpu.write(&own.targets, 0, bytemuck::cast_slice(&targets)).unwrap();
    gpu.write(&own.values, 0, bytemuck::cast_slice(&normal(rows))).unwrap();
    let mut stream = Stream::new(6, 1);
    let mut below = |count: u32| (stream.uniform() * f64::from(count)) as u32;
    if case.made.continuous() {
        let reals = normal(rows * spec.actions as usize);
        gpu.write(own.draws.as_ref().unwrap_or(&own.actions), 0, bytemuck::cast_slice(&reals)).unwrap();
    } else {
        let all = case.made.choices.iter().product();
        let actions: Vec<u32> = (0..rows).map(|_| below(all)).collect();
        gpu.write(&own.actions, 0, bytemuck::cast_slice(&actions)).unwrap();
    }
    // An eighth of the rows belongs to inactive agents.
    let masks: Vec<u32> = (0..rows).map(|_| if below(8) == 0 { 0 } else { u32::MAX }).collect();
    gpu.write(&own.dones_and_masks, u64::from(trainer.sizes.first_mask()) * 4, bytemuck::cast_slice(&masks))
        .unwrap();
    let mut recorder = Recorder::new(gpu);
    recorder.run(&trainer.update.advantages[1..]).unwrap();
    recorder.run(&trainer.update.epochs[0]).unwrap();
    let places = trainer.sizes.partial_sums(&trainer.kernel_config) as usize * 8;
    let statistics = floats(&trainer, |t| &t.update_buffers.statistics);
    let sums = statistics[..places]
        .chunks_exact(8)
        .fold([0.0; 5], |sums, place| [0, 1, 2, 3, 4].map(|i| sums[i] + place[i]));
    let in_blocks = trainer.kernel_config.blocks.is_some();
    (floats(&trainer, |t| &t.update_buffers.gradient), sums, in_blocks)
}

/// Shuffled minibatches in blocks that straddle agents, with a last one that is not full; a network for every agent, in narrower blocks; more inputs than a
/// block holds, in f16; one agent of HAPPO; and more blocks than workgroups.
#[test]
fn gradients_in_blocks_are_those_of_one_kernel_after_the_other() {
    let cases = [
        Case {
            made: made(3, 7, 5, &[2, 3]),
            envs: 68,
            steps: 5,
            change: |config| {
                config.network.hidden = vec![40, 33];
                config.network.activation = Activation::Tanh;
                // The second minibatch is compared, at the same weights.
                config.ppo.minibatches = 2;
                config.optimizer.actor_learning_rate = 0.0;
                config.optimizer.critic_learning_rate = 0.0;
            },
            tolerance: 1e-5,
        },
        Case {
            made: made(2, 9, 2, &[]),
            envs: 64,
            steps: 3,
            change: |config| {
                config.network.hidden = vec![70];
                config.network.activation = Activation::Gelu;
                config.network.networks = Sharing::Separate;
                config.network.critic_input = CriticInput::Own;
                config.network.squash = true;
            },
            tolerance: 1e-5,
        },
        Case {
            made: made(3, 90, 4, &[4]),
            envs: 20,
            steps: 4,
            change: |config| {
                config.network.hidden = vec![50, 12];
                config.network.activation = Activation::Silu;
                config.device.precision = Precision::F16;
            },
            tolerance: 1e-2,
        },
        Case {
            made: made(3, 5, 3, &[3]),
            envs: 64,
            steps: 2,
            change: |config| {
                config.network.hidden = vec![16, 16];
                config.network.networks = Sharing::Separate;
                config.network.activation = Activation::Tanh;
                config.ppo.algorithm = Algorithm::Happo;
            },
            tolerance: 1e-5,
        },
        Case {
            made: made(3, 3, 3, &[3]),
            envs: 68,
            steps: 100,
            change: |config| {
                config.network.hidden = vec![8];
                config.network.activation = Activation::Tanh;
            },
            tolerance: 1e-5,
        },
    ];
    let [software, hardware] =
        [Class::Software, Class::Hardware].map(|class| crate::testing::unchecked_gpu().with_class(class));
    for (number, case) in cases.iter().enumerate() {
        let (expected, losses, in_blocks) = update(&software, case, 1);
        assert!(!in_blocks);
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(largest > 1e-3, "{number}: {largest}");
        for parts in [1, 3] {
            let (got, sums, in_blocks) = update(&hardware, case, parts);
            assert!(in_blocks, "{number}");
            let apart = expected.iter().zip(&got).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart <= case.tolerance * largest, "{number}, {parts}: {apart} of {largest}");
            for (sum, loss) in sums.iter().zip(losses) {
                let scale = loss.abs().max(1.0);
                assert!(
                    (sum - loss).abs() <= case.tolerance * 10.0 * scale,
                    "{number}: {sums:?} for {losses:?}"
                );
            }
            assert_eq!(update(&hardware, case, parts).0, got, "{number}: the same bits again");
        }
    }
}
