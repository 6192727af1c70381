//! The losses and their gradients against references in f64.

use super::super::testing::{close, gpu, run_at};
use super::*;
use crate::nn::{ForwardPart, Storage};

/// Inputs of the loss for four rows.
struct Rows {
    logits: Vec<[f64; 4]>,
    values: [f64; 4],
    masks: [u32; 4],
    actions: [u32; 4],
    log_old: [f64; 4],
    advantages: [f64; 4],
    returns: [f64; 4],
    values_old: [f64; 4],
    entropy: f32,
    scale: f32,
    /// Sizes of the choices of an action.
    choices: Vec<usize>,
    /// Log-probability of every choice in the rollout, if each has a ratio of its own.
    choices_old: Vec<[f64; 4]>,
    /// Numbers of a continuous action instead.
    reals: Vec<[f64; 4]>,
    /// Whether they are squashed by tanh.
    squash: bool,
}

struct Outcome {
    grad_logits: Vec<Vec<f32>>,
    grad_values: Vec<f32>,
    statistics: Vec<f32>,
}

fn f32s(of: &[f64]) -> Vec<f32> {
    of.iter().map(|x| *x as f32).collect()
}

fn evaluate(rows: &Rows) -> Outcome {
    let gpu = gpu();
    let kernel_config = KernelConfig::plain(gpu.class(), Storage::F32);
    let continuous = !rows.reals.is_empty();
    let kernel = kernel(&gpu, &kernel_config, ActionKind::new(continuous, rows.squash), false).unwrap();
    let actions = rows.logits.len() as u32;
    let taken: Vec<u32> = rows.reals.iter().flatten().map(|a| (*a as f32).to_bits()).collect();
    let batch = Batch {
        rows: 1,
        stride: 1,
        agents: 1,
        quads: 1,
        grads: actions + 1,
        forward: ForwardPart { head_critic: actions, ..Default::default() },
        ..Default::default()
    };
    let loss = Loss {
        actions: if continuous { actions / 2 } else { actions },
        section: 1,
        masks: 0,
        grad_actor: 0,
        grad_critic: actions,
        clip: 0.2,
        value_clip: 0.2,
        huber: 10.0,
        value: 1.0,
        starts: (0..rows.choices.len()).map(|b| 1 << rows.choices[..b].iter().sum::<usize>()).sum(),
        groups: 1,
        choices: rows.choices_old.len() as u32,
        choice_targets: super::super::gae::choice_targets(4),
        ..Loss::default()
    };
    let head = [rows.logits.concat(), rows.values.to_vec()].concat();
    let targets = [&[rows.log_old, rows.advantages, rows.returns], &rows.choices_old[..]].concat().concat();
    let mut scalars = [0f32; 17];
    scalars[16] = 0.25;
    (scalars[4], scalars[6], scalars[9], scalars[11]) = (1.0, 1.0, rows.scale, rows.entropy);
    let block = kernel_config.block() as usize * 4;
    let grads = gpu.upload("grads", &vec![f32::NAN; (actions as usize + 1) * block]).unwrap();
    let statistics = gpu.upload("statistics", &[f32::NAN; 8]).unwrap();
    let buffers = Buffers {
        batches: &gpu.uniform_table("batches", &[batch]).unwrap(),
        head: &gpu.upload("head", &f32s(&head)).unwrap(),
        dones_and_masks: &gpu.upload("dones_and_masks", &rows.masks).unwrap(),
        actions: &gpu.upload("actions", if continuous { &taken } else { &rows.actions[..] }).unwrap(),
        targets: &gpu.upload("targets", &f32s(&targets)).unwrap(),
        values: &gpu.upload("values", &f32s(&rows.values_old)).unwrap(),
        scalars: &gpu.upload("scalars", &scalars).unwrap(),
        grads: &grads,
        statistics: &statistics,
    };
    let group = bind(&gpu, &kernel, &loss, buffers).unwrap();
    run_at(&gpu, &kernel, &group, groups(&kernel.variant, 1));
    let grads: Vec<f32> = gpu.read(&grads).unwrap();
    let row = |r: u32| grads[r as usize * block..r as usize * block + 4].to_vec();
    Outcome {
        grad_logits: (0..actions).map(row).collect(),
        grad_values: row(loss.grad_critic),
        statistics: gpu.read(&statistics).unwrap(),
    }
}

/// Reference: the loss of four rows in f64.
fn reference(rows: &Rows) -> f64 {
    (0..4)
        .map(|i| {
            let allowed = |j: &usize| rows.masks[i] >> j & 1 == 1;
            let z: Vec<f64> = (0..rows.logits.len()).map(|j| rows.logits[j][i]).collect();
            if !rows.reals.is_empty() && rows.masks[i] == 0 {
                return 0.0;
            }
            let (mut entropy, mut log_probability) = (0.0, 0.0);
            for (d, taken) in rows.reals.iter().enumerate() {
                let (mean, log_std) = (z[d], z[rows.reals.len() + d]);
                let apart = (taken[i] - mean) / log_std.exp();
                let half_log_two_pi = 0.5 * std::f64::consts::TAU.ln();
                log_probability -= 0.5 * apart * apart + log_std + half_log_two_pi;
                entropy += log_std + half_log_two_pi + 0.5;
                if rows.squash {
                    log_probability -= log_slope(taken[i]);
                    entropy += mean_log_slope(mean, log_std.exp(), 6, 0.7);
                }
            }
            let a = rows.advantages[i];
            let surrogate = |log_ratio: f64| {
                let ratio = log_ratio.exp();
                (ratio * a).min(ratio.clamp(0.8, 1.2) * a)
            };
            let mut policy = 0.0;
            let (mut first, mut rest) = (0, rows.actions[i] as usize);
            for (number, size) in rows.choices.iter().enumerate().filter(|_| rows.reals.is_empty()) {
                let own = first..first + size;
                let total: f64 = own.clone().filter(allowed).map(|j| z[j].exp()).sum();
                let lp = |j: usize| z[j] - total.ln();
                entropy += own.clone().filter(allowed).map(|j| -lp(j).exp() * lp(j)).sum::<f64>();
                log_probability += lp(first + rest % size);
                if let Some(old) = rows.choices_old.get(number) {
                    policy -= surrogate(lp(first + rest % size) - old[i]);
                }
                rest /= size;
                first += size;
            }
            if rows.choices_old.is_empty() {
                policy = -surrogate(log_probability - rows.log_old[i]);
            } else {
                entropy /= rows.choices.len() as f64;
            }
            let huber = |e: f64| if e.abs() <= 10.0 { e * e / 2.0 } else { 10.0 * (e.abs() - 5.0) };
            let (v, old) = (rows.values[i], rows.values_old[i]);
            let clipped = old + (v - old).clamp(-0.2, 0.2);
            let value = huber(rows.returns[i] - v).max(huber(rows.returns[i] - clipped));
            (policy - f64::from(rows.entropy) * entropy + value) / 4.0
        })
        .sum()
}

/// ln(1 - tanh(u)^2), computed with cosh.
fn log_slope(u: f64) -> f64 {
    -2.0 * u.cosh().ln()
}

/// Its expectation under a normal distribution, integrated over `steps` steps to either side of the mean.
fn mean_log_slope(mean: f64, std: f64, steps: i32, step: f64) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for z in (-steps..=steps).map(|k| f64::from(k) * step) {
        let weight = (-0.5 * z * z).exp();
        sum += weight * log_slope(mean + std * z);
        weights += weight;
    }
    sum / weights
}

fn golden() -> Rows {
    // With two actions, the second nearly impossible, any log-probability can be set:
    // logp(0) = z_0 - ln(e^z_0 + e^z_1).
    let logp = [-0.5f64, -1.2, -0.1, -2.0];
    Rows {
        logits: vec![logp, logp.map(|l| (1.0 - l.exp()).ln())],
        values: [0.1, 0.9, -0.3, 25.0],
        masks: [3; 4],
        actions: [0; 4],
        log_old: [-0.7, -1.0, -0.6, -2.0],
        advantages: [1.0, -0.5, 2.0, -1.5],
        returns: [0.4, 0.3, -0.8, 2.0],
        values_old: [0.0, 0.5, 0.2, 1.0],
        entropy: 0.0,
        scale: 1.0,
        choices: vec![2],
        choices_old: Vec::new(),
        reals: Vec::new(),
        squash: false,
    }
}

#[test]
fn golden_values() {
    let rows = golden();
    let got = evaluate(&rows);
    // dL/dlogp times dlogp/dz_0 = 1 - p.
    let slopes = [0.0, 0.1023413, 0.0, 0.375];
    let expected: Vec<f64> = slopes.iter().zip(rows.logits[0]).map(|(g, l)| g * (1.0 - l.exp())).collect();
    close("policy gradient", &got.grad_logits[0], &expected, 1e-6);
    let mean = |i: usize| got.statistics[i] / 4.0;
    close("policy loss", &[mean(0)], &[-0.4226587], 1e-6);
    close("KL", &[mean(3)], &[0.0472137], 1e-6);
    close("clip fraction", &[mean(4)], &[0.5], 0.0);
    close("value loss", &[mean(1)], &[(0.045 + 0.18 + 0.32 + 180.0) / 4.0], 1e-6);
}

#[test]
fn entropy_golden_value() {
    let mut rows = golden();
    rows.logits = vec![[0.2; 4], [-0.1; 4], [0.7; 4]];
    (rows.masks, rows.choices) = ([7; 4], vec![3]);
    close("entropy", &[evaluate(&rows).statistics[2] / 4.0], &[1.0430548], 1e-6);
}

#[test]
fn gradients_agree_with_finite_differences() {
    // One choice of five; a choice of two and one of three, forbidden actions in either, action = first + 2 second.
    let one = ([0b11111, 0b10111, 0b01101, 0b11110], [2, 1, 0, 4], vec![5]);
    let two = ([0b11111, 0b10101, 0b01110, 0b11110], [2 * 2, 2 * 2, 1, 1 + 2 * 2], vec![2, 3]);
    // The ratio of the whole action, and one per choice: inside the clip range, above and below it.
    let each = vec![[-1.0, -0.1, -0.9, -0.2], [-1.4, -0.2, -0.3, -1.05]];
    for ((masks, actions, choices), choices_old) in [(one, vec![]), (two.clone(), vec![]), (two, each)] {
        check_gradients(masks, actions, choices, choices_old);
    }
}

fn check_gradients(masks: [u32; 4], actions: [u32; 4], choices: Vec<usize>, choices_old: Vec<[f64; 4]>) {
    let mut rows = Rows {
        logits: vec![
            [0.3, -1.0, 2.0, 0.1],
            [-0.4, 0.5, 0.2, 0.9],
            [1.1, 0.7, -0.6, -0.2],
            [0.0, 0.4, -1.5, 0.8],
            [0.6, -0.3, 0.1, 0.25],
        ],
        masks,
        actions,
        choices,
        choices_old,
        log_old: [-1.0, -0.9, -0.3, -1.6],
        entropy: 0.37,
        ..golden()
    };
    rows.values = [0.1, 0.9, -0.3, 2.5];
    let got = evaluate(&rows);
    let sum = got.statistics[..2].iter().map(|sum| f64::from(*sum)).sum::<f64>();
    let entropy = f64::from(rows.entropy * got.statistics[2]);
    close("loss", &[((sum - entropy) / 4.0) as f32], &[reference(&rows)], 1e-6);
    let step = 1e-6;
    for j in 0..rows.logits.len() {
        for i in 0..4 {
            let centre = rows.logits[j][i];
            let mut at = |x: f64| {
                rows.logits[j][i] = x;
                reference(&rows)
            };
            let slope = (at(centre + step) - at(centre - step)) / (2.0 * step);
            at(centre);
            close(&format!("logit {j} of row {i}"), &[got.grad_logits[j][i]], &[slope], 1e-6);
        }
    }
    for i in 0..4 {
        let centre = rows.values[i];
        let mut at = |x: f64| {
            rows.values[i] = x;
            reference(&rows)
        };
        let slope = (at(centre + step) - at(centre - step)) / (2.0 * step);
        at(centre);
        close(&format!("value of row {i}"), &[got.grad_values[i]], &[slope], 1e-6);
    }
}

#[test]
fn the_loss_scale_multiplies_the_gradients_and_nothing_else() {
    let mut rows = golden();
    rows.entropy = 0.3;
    let plain = evaluate(&rows);
    rows.scale = 1024.0;
    let scaled = evaluate(&rows);
    assert_eq!(plain.statistics, scaled.statistics);
    let times = |of: &[f32]| of.iter().map(|g| g * 1024.0).collect::<Vec<_>>();
    assert_eq!(times(&plain.grad_values), scaled.grad_values);
    let logits = plain.grad_logits.concat().iter().map(|g| f64::from(*g) * 1024.0).collect::<Vec<_>>();
    close("logits", &scaled.grad_logits.concat(), &logits, 1e-6);
}

#[test]
fn a_forbidden_action_has_no_gradient() {
    let mut rows = golden();
    rows.logits = vec![[0.2; 4], [80.0; 4], [0.7; 4]];
    (rows.masks, rows.choices) = ([0b101; 4], vec![3]);
    rows.entropy = 0.5;
    let got = evaluate(&rows);
    assert_eq!(got.grad_logits[1], [0.0; 4]);
    assert!(got.grad_logits.concat().iter().all(|g| g.is_finite()));
}

/// Continuous actions of two numbers, one row not active: gradients of means and logarithms of standard deviations against finite
/// differences.
#[test]
fn gradients_of_real_numbers_agree_with_finite_differences() {
    for squash in [false, true] {
        check_gradients_of_reals(squash);
    }
}

fn check_gradients_of_reals(squash: bool) {
    let mut rows = Rows {
        logits: vec![
            [0.3, -1.0, 2.0, 0.1],
            [-0.4, 0.5, 0.2, 0.9],
            [0.1, -0.7, 0.6, -0.2],
            [0.0, 0.4, -0.5, 0.3],
        ],
        masks: [3, 3, 0, 1],
        log_old: [-2.9, -2.4, -1.0, -2.6],
        entropy: 0.37,
        reals: vec![[0.9, -0.8, 1.0, 0.4], [-1.4, 0.2, 0.3, 1.3]],
        squash,
        ..golden()
    };
    rows.values = [0.1, 0.9, -0.3, 2.5];
    if squash {
        // The same numbers before tanh, so that the ratios are the same.
        for (i, log_old) in rows.log_old.iter_mut().enumerate() {
            *log_old -= rows.reals.iter().map(|u| log_slope(u[i])).sum::<f64>();
        }
    }
    let got = evaluate(&rows);
    let step = 1e-6;
    let mut largest = 0f64;
    for j in 0..4 {
        for i in 0..4 {
            let centre = rows.logits[j][i];
            let mut at = |x: f64| {
                rows.logits[j][i] = x;
                reference(&rows)
            };
            let slope = (at(centre + step) - at(centre - step)) / (2.0 * step);
            at(centre);
            largest = largest.max(slope.abs());
            close(&format!("output {j} of row {i}"), &[got.grad_logits[j][i]], &[slope], 1e-6);
        }
    }
    assert!(largest > 0.1, "{largest}");
}

/// Entropies of four means and standard deviations, and of a policy that has not moved since it sampled extreme numbers.
#[test]
fn squashed_numbers_keep_their_ratio_and_entropy_far_out() {
    let mut rows = golden();
    let (means, log_stds) = ([0.0, 0.4, 8.0, -30.0], [-0.14, 0.0, -1.0, 0.3]);
    (rows.logits, rows.squash) = (vec![means, log_stds], true);
    rows.reals = vec![[0.5, -2.5, 8.3, -30.0]];
    for i in 0..4 {
        let apart = (rows.reals[0][i] - means[i]) / log_stds[i].exp();
        let log_normal = -0.5 * apart * apart - log_stds[i] - 0.5 * std::f64::consts::TAU.ln();
        rows.log_old[i] = log_normal - log_slope(rows.reals[0][i]);
    }
    let got = evaluate(&rows);
    close("policy loss", &got.statistics, &[-rows.advantages.iter().sum::<f64>()], 2e-5);
    close("KL and clipped", &got.statistics[3..5], &[0.0, 0.0], 1e-6);
    let entropy = |i: usize| {
        let of_normal = log_stds[i] + 0.5 * std::f64::consts::TAU.ln() + 0.5;
        of_normal + mean_log_slope(means[i], log_stds[i].exp(), 400, 0.02)
    };
    close("entropy", &[got.statistics[2]], &[(0..4).map(entropy).sum()], 2e-5);
    // The maximum, just below the ln 2 of the uniform distribution.
    assert!((entropy(0) - 0.6836).abs() < 1e-4);
    assert!(got.grad_logits.concat().iter().all(|g| g.is_finite()));
}

/// An inactive row has no gradient, whatever its inputs are.
#[test]
fn an_agent_that_is_not_active_counts_nowhere() {
    let mut rows = golden();
    rows.entropy = 0.5;
    rows.masks[2] = 0;
    let clean = evaluate(&rows);
    rows.logits.iter_mut().for_each(|logit| logit[2] = 1e30);
    (rows.values[2], rows.advantages[2], rows.returns[2], rows.log_old[2]) = (f64::NAN, f64::NAN, 3.0, -90.0);
    let got = evaluate(&rows);
    for outcome in [&clean, &got] {
        assert!(outcome.grad_logits.iter().all(|g| g[2] == 0.0) && outcome.grad_values[2] == 0.0);
        assert!(outcome.grad_logits.concat().iter().chain(&outcome.grad_values).all(|g| g.is_finite()));
    }
    assert_eq!((&got.statistics[..5], &got.grad_values), (&clean.statistics[..5], &clean.grad_values));
    assert_eq!(got.grad_logits, clean.grad_logits);
    assert!(got.grad_values[0] != 0.0 && got.statistics[1] != 0.0);
}
