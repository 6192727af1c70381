//! Actions from the outputs of an actor, as `shaders/ppo/sample.wgsl` draws them.

use crate::random::threefry;

/// Separates the random numbers of actions from others of the same seed.
const STREAM: u32 = 0x5EED_AC70;

/// The largest f32 below 1.
pub(super) const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

/// Place of an agent's random numbers among those of a decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Quad of environments of an agent.
    pub(super) row: usize,
    pub(super) rows: usize,
    /// Environment of the quad.
    pub(super) lane: usize,
}

impl Place {
    /// The random bits for choice `number` of an action, or its real number `number`, in decision `step`.
    pub(super) fn numbers(self, seed: u64, step: u32) -> impl Fn(usize) -> [u32; 2] {
        move |number| {
            let place = (number * self.rows + self.row) * 2 + self.lane / 2;
            threefry([seed as u32, (seed >> 32) as u32 ^ STREAM], [step, place as u32])
        }
    }
}

/// Uniform in [0, 1), 24 bits.
fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

fn allowed(mask: u32, action: usize) -> bool {
    mask & (1 << action) != 0
}

/// The most probable action, or with random bits one drawn from the softmax of the logits. Returns its log-probability.
pub(super) fn choose(
    choices: &[u32],
    logits: &[f32],
    mask: u32,
    random: Option<(impl Fn(usize) -> [u32; 2], usize)>,
    chosen: &mut u32,
) -> f32 {
    let (mut first, mut before, mut log_probability) = (0, 1, 0.0);
    *chosen = 0;
    for (number, size) in choices.iter().enumerate() {
        let end = first + *size as usize;
        let own = |j: &usize| allowed(mask, *j);
        let top = (first..end).filter(own).fold(f32::MIN, |top, j| top.max(logits[j]));
        let total: f32 = (first..end).filter(own).map(|j| (logits[j] - top).exp()).sum();
        let taken = match &random {
            None => (first..end).filter(own).find(|j| logits[*j] == top),
            Some((bits, lane)) => {
                let draw = unit(bits(number)[lane % 2]) * total;
                let mut sum = 0.0;
                let mut last = None;
                // The last allowed action is kept until the sum passes the draw: rounding cannot leave none.
                for j in (first..end).filter(own) {
                    sum += (logits[j] - top).exp();
                    last = Some(j);
                    if draw < sum {
                        break;
                    }
                }
                last
            }
        };
        if let Some(taken) = taken {
            *chosen += (taken - first) as u32 * before;
            log_probability += logits[taken] - top - total.ln();
        }
        before *= size;
        first = end;
    }
    log_probability
}

/// The means, or with random bits numbers drawn from normal distributions; squashed by tanh or not. Returns the logarithm of their density.
pub(super) fn draw(
    squashed: bool,
    outputs: &[f32],
    idle: bool,
    random: Option<(impl Fn(usize) -> [u32; 2], usize)>,
    numbers: &mut [u32],
) -> f32 {
    let (means, logs) = outputs.split_at(numbers.len());
    let mut log_probability = 0.0;
    for (number, taken) in numbers.iter_mut().enumerate() {
        let z = random.as_ref().map_or(0.0, |(bits, lane)| normal(bits(number), lane % 2));
        let value = if idle { 0.0 } else { means[number] + logs[number].exp() * z };
        log_probability -= 0.5 * z * z + logs[number] + 0.918_938_5;
        if squashed {
            log_probability -= log_slope(value);
        }
        *taken = if squashed { value.tanh().clamp(-BELOW_ONE, BELOW_ONE) } else { value }.to_bits();
    }
    if idle { 0.0 } else { log_probability }
}

/// The transform of Box and Muller.
fn normal(bits: [u32; 2], lane: usize) -> f32 {
    let radius = (-2.0 * (1.0 - unit(bits[0])).ln()).sqrt();
    let angle = std::f32::consts::TAU * unit(bits[1]);
    radius * if lane == 0 { angle.cos() } else { angle.sin() }
}

/// ln(1 - tanh(u)^2)
fn log_slope(u: f32) -> f32 {
    let size = u.abs();
    2.0 * (std::f32::consts::LN_2 - size - (-2.0 * size).exp().ln_1p())
}

/// Probabilities of all options, choice by choice.
pub(super) fn probabilities(choices: &[u32], logits: &[f32], mask: u32, found: &mut [f32]) {
    let mut first = 0;
    for size in choices {
        let end = first + *size as usize;
        let own = |j: &usize| allowed(mask, *j);
        let top = (first..end).filter(own).fold(f32::MIN, |top, j| top.max(logits[j]));
        let total: f32 = (first..end).filter(own).map(|j| (logits[j] - top).exp()).sum();
        for j in first..end {
            found[j] = if allowed(mask, j) { (logits[j] - top).exp() / total } else { 0.0 };
        }
        first = end;
    }
}
