//! Samples actions, and computes their log-probabilities.
//!
//! Discrete actions: p_j = exp(z_j) / sum exp(z) over the allowed actions. The action is the first one whose cumulative probability
//! exceeds a uniform random number, or the most probable one. A multi-discrete action has the logits of its choices one after the
//! other; it is stored as one number whose digits are the choices, the first choice the fastest, and its probability is the product of
//! theirs. The logarithms of the choices' probabilities can be stored as well. Random numbers are counter-based: key = seed, counter = (step of the training, row), so a run can be repeated and resumed.
//!
//! Continuous actions: a = mean + exp(log_std) z, z by the Box-Muller transform, log p = - sum of z^2 / 2 + log_std + ln(2 pi) / 2.
//!
//! Squashed actions: u as above, a = tanh(u) in (-1, 1), log p(a) = log p(u) - sum of ln(1 - tanh(u)^2) (Haarnoja et al., arXiv
//! 1801.01290, appendix C), with ln(1 - tanh(u)^2) = 2 (ln 2 - |u| - ln(1 + exp(-2 |u|))), which is stable for every u. Both numbers are
//! stored: the environment reads a, the loss reads u. In f32 the inverse of tanh would reproduce u within 2e-5 up to |u| = 4, within
//! 9e-3 up to 7, and not at all from 9 on.
//!
//! Shapes: logits `[action][agent][env]`, masks (one bit per action) `[slot][agent][env]`, discrete actions and log-probabilities
//! `[t][agent][env]`, continuous actions and their numbers before tanh `[t][agent][number][env]`.

use super::ActionKind;
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/sample");

/// Counterpart of `Sample` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sample {
    /// Step within the rollout.
    pub step: u32,
    /// Steps of a rollout.
    pub steps: u32,
    /// Agents of an environment.
    pub agents: u32,
    /// Environments / 4.
    pub quads: u32,
    /// Actions.
    pub actions: u32,
    /// vec4s from one logit of a row to the next.
    pub stride: u32,
    /// 1: take the most probable action.
    pub greedy: u32,
    /// First vec4 of the masks.
    pub masks: u32,
    /// Seed, low half.
    pub seed_low: u32,
    /// Seed, high half.
    pub seed_high: u32,
    /// A bit for every logit that begins a choice.
    pub starts: u32,
    /// First vec4 of the choices' log-probabilities in the targets ([`super::gae::choice_targets`]); 0: they are not stored.
    pub choice_targets: u32,
}

/// The variant for these actions.
#[must_use]
pub fn variant(class: Class, kind: ActionKind) -> Variant {
    kind.apply(Variant::independent(class))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, kind: ActionKind) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Read, Read, Read, Write, Write, Write];
    let access = &access[..if kind == ActionKind::Squashed { 7 } else { 6 }];
    Kernel::trusted(gpu, &SHADER, variant(gpu.class(), kind), access, size_of::<Sample>())
}

/// Workgroups: one invocation per quad of rows.
#[must_use]
pub fn groups(variant: &Variant, agents: u32, quads: u32) -> [u32; 3] {
    [variant.groups(agents * quads), 1, 1]
}

/// Binds the table of parameters, logits, `dones_and_masks`, iteration, actions, targets and, for squashed actions, the numbers before
/// tanh.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: &[&wgpu::Buffer]) -> Result<BindGroup> {
    kernel.bind(gpu, buffers)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gpu, run_at};
    use super::*;
    use crate::random::threefry;

    struct Drawn {
        actions: Vec<u32>,
        log_probabilities: Vec<f32>,
        /// Log-probabilities of the choices, `[choice][row]`.
        choices: Vec<Vec<f32>>,
    }

    fn draw(logits: &[f32], mask: u32, quads: u32, greedy: bool, seed: u64, iteration: u32) -> Drawn {
        draw_of(1, logits, mask, quads, greedy, seed, iteration)
    }

    fn draw_of(
        starts: u32,
        logits: &[f32],
        mask: u32,
        quads: u32,
        greedy: bool,
        seed: u64,
        iteration: u32,
    ) -> Drawn {
        let gpu = gpu();
        let rows = quads as usize * 4;
        let all: Vec<f32> = logits.iter().flat_map(|z| vec![*z; rows]).collect();
        let parameters = Sample {
            steps: 8,
            step: 0,
            agents: 1,
            quads,
            choice_targets: super::super::gae::choice_targets(8 * rows as u32),
            actions: logits.len() as u32,
            stride: quads,
            greedy: u32::from(greedy),
            starts,
            seed_low: seed as u32,
            seed_high: (seed >> 32) as u32,
            ..Default::default()
        };
        let kernel = kernel(&gpu, ActionKind::Choices).unwrap();
        let actions = gpu.upload("actions", &vec![99u32; rows]).unwrap();
        let choices = starts.count_ones() as usize;
        let targets = gpu.upload("targets", &vec![f32::NAN; (3 + choices) * 8 * rows]).unwrap();
        let buffers = [
            &gpu.uniform_table("sample", &[parameters]).unwrap(),
            &gpu.upload("logits", &all).unwrap(),
            &gpu.upload("masks", &vec![mask; rows]).unwrap(),
            &gpu.upload("iteration", &[iteration, 0]).unwrap(),
            &actions,
            &targets,
        ];
        let group = bind(&gpu, &kernel, &buffers).unwrap();
        run_at(&gpu, &kernel, &group, groups(&kernel.variant, 1, quads));
        let targets: Vec<f32> = gpu.read(&targets).unwrap();
        let section = |number: usize| targets[number * 8 * rows..][..rows].to_vec();
        Drawn {
            actions: gpu.read(&actions).unwrap(),
            log_probabilities: section(0),
            choices: (3..3 + choices).map(section).collect(),
        }
    }

    #[test]
    fn frequencies_follow_the_probabilities_and_the_mask() {
        let logits = [0.2f32, -0.1, 0.7, 3.0];
        let drawn = draw(&logits, 0b0111, 5000, false, 7, 3);
        let weights: Vec<f64> = logits[..3].iter().map(|z| f64::from(*z).exp()).collect();
        let total: f64 = weights.iter().sum();
        let rows = drawn.actions.len() as f64;
        for (action, weight) in weights.iter().enumerate() {
            let share = drawn.actions.iter().filter(|a| **a == action as u32).count() as f64 / rows;
            let p = weight / total;
            let deviation = (p * (1.0 - p) / rows).sqrt();
            assert!((share - p).abs() < 4.0 * deviation, "action {action}: {share} for {p}");
        }
        for (action, log_probability) in drawn.actions.iter().zip(&drawn.log_probabilities) {
            let expected = (weights[*action as usize] / total).ln();
            assert!((f64::from(*log_probability) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn the_draw_is_the_counter_based_one() {
        let (seed, iteration) = (0x1234_5678_9abc_def0u64, 5u32);
        let drawn = draw(&[0.0, 0.0, 0.0, 0.0], 0b1111, 3, false, seed, iteration);
        for (row, action) in drawn.actions.iter().enumerate() {
            let key = [seed as u32, (seed >> 32) as u32];
            let bits = threefry(key, [iteration * 8, row as u32 / 4 * 2 + (row as u32 % 4) / 2])[row % 2];
            assert_eq!(*action, bits >> 30, "row {row}: quarters of equal probability");
        }
    }

    /// A choice of two, a choice of three whose last is masked, and a choice of two.
    #[test]
    fn choices_are_drawn_each_by_itself() {
        let logits = [0.4f32, -0.3, 0.9, 0.1, 5.0, 0.0, 1.0];
        let (starts, mask) = (0b010_0101, 0b110_1111);
        let drawn = draw_of(starts, &logits, mask, 5000, false, 7, 3);
        let softmax = |of: &[f32], j: usize| {
            f64::from(of[j]).exp() / of.iter().map(|z| f64::from(*z).exp()).sum::<f64>()
        };
        let rows = drawn.actions.len() as f64;
        for action in 0..12u32 {
            let digits = [action % 2, action / 2 % 3, action / 6].map(|digit| digit as usize);
            let found = drawn.actions.iter().filter(|a| **a == action).count() as f64 / rows;
            if digits[1] == 2 {
                assert_eq!(found, 0.0, "forbidden");
                continue;
            }
            // The choices are independent: the probability is the product of the three.
            let p = softmax(&logits[..2], digits[0])
                * softmax(&logits[2..4], digits[1])
                * softmax(&logits[5..], digits[2]);
            let deviation = (p * (1.0 - p) / rows).sqrt();
            assert!((found - p).abs() < 4.0 * deviation, "action {action}: {found} for {p}");
            let said = drawn.actions.iter().zip(&drawn.log_probabilities).filter(|(a, _)| **a == action);
            said.for_each(|(_, said)| assert!((f64::from(*said) - p.ln()).abs() < 1e-6));
        }
        // The log-probability of every choice is stored by itself.
        for (row, action) in drawn.actions.iter().enumerate() {
            let digits = [action % 2, action / 2 % 3, action / 6].map(|digit| digit as usize);
            for (number, allowed) in [&logits[..2], &logits[2..4], &logits[5..]].into_iter().enumerate() {
                let said = f64::from(drawn.choices[number][row]);
                assert!((said - softmax(allowed, digits[number]).ln()).abs() < 1e-6, "choice {number}");
            }
        }
        let best = draw_of(starts, &logits, mask, 1, true, 7, 3);
        assert!(best.actions.iter().all(|a| *a == 6));
    }

    /// Actions, log-probabilities, and numbers before tanh, of one step.
    fn draw_reals(
        kind: ActionKind,
        [agents, numbers]: [u32; 2],
        head: &[f32],
        masks: &[u32],
        greedy: bool,
        iteration: u32,
    ) -> [Vec<f32>; 3] {
        let gpu = gpu();
        let quads = masks.len() as u32 / agents / 4;
        let parameters = Sample {
            steps: 1,
            agents,
            quads,
            actions: numbers,
            stride: quads * agents,
            greedy: u32::from(greedy),
            seed_low: 5,
            ..Default::default()
        };
        let kernel = kernel(&gpu, kind).unwrap();
        let empty = |name: &str, words: usize| gpu.upload(name, &vec![f32::NAN; words]).unwrap();
        let actions = empty("actions", masks.len() * numbers as usize);
        let targets = empty("targets", masks.len());
        let draws = empty("draws", masks.len() * numbers as usize);
        let buffers = [
            &gpu.uniform_table("sample", &[parameters]).unwrap(),
            &gpu.upload("head", head).unwrap(),
            &gpu.upload("masks", masks).unwrap(),
            &gpu.upload("iteration", &[iteration, 0]).unwrap(),
            &actions,
            &targets,
            &draws,
        ];
        let bound = if kind == ActionKind::Squashed { &buffers[..] } else { &buffers[..6] };
        let group = bind(&gpu, &kernel, bound).unwrap();
        run_at(&gpu, &kernel, &group, groups(&kernel.variant, agents, quads));
        [actions, targets, draws].map(|buffer| gpu.read(&buffer).unwrap())
    }

    fn log_normal(u: f64, mean: f64, log_std: f64) -> f64 {
        let z = (u - mean) / log_std.exp();
        -0.5 * z * z - log_std - 0.5 * std::f64::consts::TAU.ln()
    }

    /// Reference, with cosh: ln(1 - tanh(u)^2) = - 2 ln cosh(u).
    fn log_slope(u: f64) -> f64 {
        -2.0 * u.cosh().ln()
    }

    #[test]
    fn squashed_numbers_are_exact_however_large() {
        let means = [0.0f32, 0.5, 8.0, 30.0, -30.0, 1e-4, -4.0, 100.0];
        let log_std = -0.3;
        let head = [means, [log_std; 8]].concat();
        let [actions, said, draws] =
            draw_reals(ActionKind::Squashed, [1, 1], &head, &[1, 1, 1, 1, 1, 1, 1, 0], true, 0);
        for (row, u) in means.iter().enumerate().take(7) {
            let (u, action) = (f64::from(*u), f64::from(actions[row]));
            assert!((action - u.tanh()).abs() < 2e-7 && action.abs() < 1.0, "tanh({u}) is not {action}");
            assert_eq!(draws[row], means[row]);
            let expected = log_normal(u, u, f64::from(log_std)) - log_slope(u);
            let error = (f64::from(said[row]) - expected).abs() / expected.abs().max(1.0);
            assert!(error < 3e-7, "log p at {u}: {} for {expected}", said[row]);
        }
        assert_eq!([actions[7], said[7], draws[7]], [0.0; 3], "not active");
    }

    #[test]
    fn squashed_numbers_have_the_density_that_is_said() {
        let envs = 4000;
        let (means, log_stds) = ([0.4f32, -0.2], [-0.3f32, 0.1]);
        let head: Vec<f32> = [means, log_stds].concat().iter().flat_map(|of| vec![*of; envs]).collect();
        let [actions, said, draws] =
            draw_reals(ActionKind::Squashed, [1, 2], &head, &vec![1; envs], false, 3);
        let root = (envs as f64).sqrt();
        let mut expected = vec![0f64; envs];
        for number in 0..2 {
            let own = number * envs..(number + 1) * envs;
            let (mean, log_std) = (f64::from(means[number]), f64::from(log_stds[number]));
            let mut sums = [0f64; 4];
            for ((action, drawn), expected) in actions[own.clone()].iter().zip(&draws[own]).zip(&mut expected)
            {
                let (action, drawn) = (f64::from(*action), f64::from(*drawn));
                assert!((action - drawn.tanh()).abs() < 2e-7 && action.abs() < 1.0);
                let z = (action.atanh() - mean) / log_std.exp();
                sums.iter_mut().zip(1..).for_each(|(sum, power)| *sum += z.powi(power));
                *expected += log_normal(drawn, mean, log_std) - log_slope(drawn);
            }
            for ((sum, moment), error) in sums.iter().zip([0.0, 1.0, 0.0, 3.0]).zip([1.0, 1.42, 3.88, 9.8]) {
                let off = (sum / envs as f64 - moment).abs() * root / error;
                assert!(off < 4.0, "number {number}, {moment}: {off} standard errors");
            }
        }
        // The mean of 1 / p over the samples in a box is the area of the box.
        for [low, high] in [[-0.8, 0.8], [0.2, 0.9], [-0.9, -0.3]] {
            let inverse = |row: usize| {
                let inside =
                    [row, envs + row].iter().all(|at| (low..high).contains(&f64::from(actions[*at])));
                if inside { (-f64::from(said[row])).exp() } else { 0.0 }
            };
            let mean = (0..envs).map(inverse).sum::<f64>() / envs as f64;
            let variance = (0..envs).map(|row| (inverse(row) - mean).powi(2)).sum::<f64>() / envs as f64;
            let (area, error) = ((high - low) * (high - low), variance.sqrt() / root);
            assert!((mean - area).abs() < 4.0 * error && error < 0.1 * area, "{mean} +- {error} for {area}");
        }
        for (said, expected) in said.iter().zip(expected) {
            assert!(
                (f64::from(*said) - expected).abs() < 2e-6 * expected.abs().max(1.0),
                "{said} for {expected}"
            );
        }
    }

    #[test]
    fn real_numbers_are_normal_with_the_means_and_deviations_of_the_head() {
        let (quads, agents, numbers) = (1000u32, 3u32, 2u32);
        let rows = (quads * agents * 4) as usize;
        // The means of all numbers, then the logarithms of their standard deviations; they differ between agents.
        let of = |output: usize, agent: usize| [0.5f32, -2.0, -0.7, 0.3][output] + agent as f32 * 0.1;
        let head: Vec<f32> = (0..4 * rows).map(|i| of(i / rows, i % rows / (quads as usize * 4))).collect();
        // The last agent is not active.
        let masks: Vec<u32> = (0..rows).map(|row| u32::from(row < 2 * rows / 3)).collect();
        let draw = |greedy: bool, iteration: u32| {
            let [drawn, said, _] =
                draw_reals(ActionKind::Reals, [agents, numbers], &head, &masks, greedy, iteration);
            (drawn, said)
        };
        let (drawn, said) = draw(false, 3);
        assert_eq!((drawn.clone(), said.clone()), draw(false, 3), "the same counter, the same draw");
        assert_ne!(drawn, draw(false, 4).0);
        let envs = quads as usize * 4;
        let mut log_probabilities = vec![0f64; rows];
        for agent in 0..3 {
            for number in 0..2 {
                let own = &drawn[(agent * 2 + number) * envs..][..envs];
                if agent == 2 {
                    assert!(own.iter().all(|a| *a == 0.0));
                    continue;
                }
                let (mean, log_std) = (f64::from(of(number, agent)), f64::from(of(2 + number, agent)));
                let z: Vec<f64> = own.iter().map(|a| (f64::from(*a) - mean) / log_std.exp()).collect();
                let moment = |power: i32| z.iter().map(|z| z.powi(power)).sum::<f64>() / envs as f64;
                // Standard errors of the first four moments of a normal distribution: 1, sqrt 2, sqrt 15, sqrt 96.
                for (power, expected, error) in [(1, 0.0, 1.0), (2, 1.0, 1.42), (3, 0.0, 3.88), (4, 3.0, 9.8)]
                {
                    let off = (moment(power) - expected).abs() * (envs as f64).sqrt() / error;
                    assert!(
                        off < 4.0,
                        "agent {agent}, number {number}, moment {power}: {off} standard errors"
                    );
                }
                for (sum, z) in log_probabilities[agent * envs..].iter_mut().zip(&z) {
                    *sum -= 0.5 * z * z + log_std + 0.5 * std::f64::consts::TAU.ln();
                }
            }
        }
        for (said, expected) in said.iter().zip(&log_probabilities) {
            assert!(
                (f64::from(*said) - expected).abs() < 1e-4 * expected.abs().max(1.0),
                "{said} for {expected}"
            );
        }
        let (best, _) = draw(true, 3);
        assert!(best[..envs].iter().all(|a| *a == 0.5) && best[envs..2 * envs].iter().all(|a| *a == -2.0));
    }

    #[test]
    fn the_greedy_action_is_the_first_best_allowed_one() {
        assert!(draw(&[0.0, 2.0, 2.0, 5.0], 0b0111, 2, true, 1, 0).actions.iter().all(|a| *a == 1));
    }

    #[test]
    fn who_may_do_nothing_does_the_first_and_says_so_with_certainty() {
        for greedy in [false, true] {
            let drawn = draw(&[-3.0, 2.0], 0, 2, greedy, 1, 0);
            assert!(
                drawn.actions.iter().all(|a| *a == 0) && drawn.log_probabilities.iter().all(|l| *l == 0.0)
            );
        }
    }

    #[test]
    fn extreme_logits_keep_finite_log_probabilities() {
        let drawn = draw(&[1e30, -1e30, 0.0], 0b111, 4, false, 1, 0);
        assert!(drawn.actions.iter().all(|a| *a == 0));
        assert!(drawn.log_probabilities.iter().all(|l| *l == 0.0));
        let only = draw(&[-50.0, 900.0], 0b01, 1, false, 1, 0);
        assert!(only.actions.iter().all(|a| *a == 0) && only.log_probabilities.iter().all(|l| *l == 0.0));
    }
}
