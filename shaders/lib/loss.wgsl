// PPO losses of a quad of rows and their gradients at the heads: clipped surrogate, clipped Huber value loss, entropy, and the
// statistics for the metrics. The surrogate is that of the whole action, or the sum of those of its choices. In an agent step of HAPPO
// only one agent's rows count, and the probability ratios of the agents before it, stored behind the statistics, multiply its
// surrogate. Its own ratio, by which it multiplies them in turn, is that of its policies after and before its epochs.

import package::lib::branch::{end_of, choice_of};
import package::lib::heads::{p, logit, value_of, put_logit_gradient, put_value_gradient};
import package::lib::slots::{batch, dones_and_masks};
@if(squash) import package::lib::squash::{log_slope, mean_log_slope, slopes_of_mean};
import package::scalars::{MEAN, DEVIATION, ADVANTAGE_MEAN, ADVANTAGE_SCALE, LOSS_SCALE, ENTROPY, GROUP};

// For squashed actions the draws before tanh.
@group(0) @binding(9) var<storage, read> actions: array<vec4<u32>>;
@group(0) @binding(10) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> old_values: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> scalars: array<f32>;
@group(0) @binding(13) var<storage, read_write> statistics: array<vec4<f32>>;

const ZERO = vec4<f32>(0.0);
const ONE = vec4<f32>(1.0);

fn allowed(mask: vec4<u32>, action: u32) -> vec4<bool> {
    return (mask & vec4<u32>(1u << action)) != vec4<u32>(0u);
}

fn huber(e: vec4<f32>) -> vec4<f32> {
    let size = abs(e);
    return select(p.huber * (size - 0.5 * p.huber), 0.5 * e * e, size <= vec4<f32>(p.huber));
}

fn add(v: vec4<f32>) -> f32 {
    return v.x + v.y + v.z + v.w;
}

// Logarithm of the sum of the exponentials of the allowed logits of one choice.
fn log_sum(outputs: u32, first: u32, end: u32, mask: vec4<u32>) -> vec4<f32> {
    var top = vec4<f32>(-3.4e38);
    for (var j = first; j < end; j++) {
        top = select(top, max(top, logit(outputs, j)), allowed(mask, j));
    }
    var total = ZERO;
    for (var j = first; j < end; j++) {
        total += select(ZERO, exp(logit(outputs, j) - top), allowed(mask, j));
    }
    return log(total) + top;
}

// Surrogate of a probability ratio.
struct Surrogate {
    ratio: vec4<f32>,
    // The objective, which is maximised.
    objective: vec4<f32>,
    // Derivative of the loss by the log-probability.
    slope: vec4<f32>,
    // 1 outside the clip range.
    clipped: vec4<f32>,
}

fn surrogate(log_ratio: vec4<f32>, weighed: vec4<f32>) -> Surrogate {
    let ratio = exp(log_ratio);
    let plain = ratio * weighed;
    let bounded = clamp(ratio, vec4<f32>(1.0 - p.clip), vec4<f32>(1.0 + p.clip)) * weighed;
    let outside = abs(ratio - ONE) > vec4<f32>(p.clip);
    return Surrogate(ratio, min(plain, bounded), select(ZERO, -plain, plain <= bounded), select(ZERO, ONE, outside));
}

// Slot of a row; in a shuffled minibatch it may lie after the last step.
fn listed_slot(row: u32) -> u32 {
    let slot = batch.first_slot + row / (batch.agents * batch.quads);
    if (batch.order == 0u) {
        return slot;
    }
    let listed = slot * batch.quads + row % batch.quads;
    return dones_and_masks[batch.order + listed / 4u][listed % 4u];
}

// The taken action under the present policy.
struct Chosen {
    log_probability: vec4<f32>,
    // Entropy of the policy, and with ratios per choice the sums of the choices' objectives and clipped ratios.
    entropy: vec4<f32>,
    objective: vec4<f32>,
    clipped: vec4<f32>,
}

// Option taken in one choice under the present policy.
@if(!continuous)
struct Option {
    taken: vec4<u32>,
    log_total: vec4<f32>,
    log_probability: vec4<f32>,
    entropy: vec4<f32>,
}

// The choice of the logits `first` to `end`; `before` is the number of combinations of the choices before it.
@if(!continuous)
fn option(outputs: u32, at: u32, mask: vec4<u32>, first: u32, end: u32, before: u32) -> Option {
    var found = Option(choice_of(actions[at], before, end - first), log_sum(outputs, first, end, mask), ZERO, ZERO);
    for (var j = first; j < end; j++) {
        let lp = logit(outputs, j) - found.log_total;
        let may = allowed(mask, j);
        found.entropy -= select(ZERO, exp(lp) * lp, may);
        found.log_probability += select(ZERO, lp, may & (found.taken == vec4<u32>(j - first)));
    }
    return found;
}

// Surrogate of choice `number` by itself.
@if(!continuous)
fn of_choice(number: u32, at: u32, log_probability: vec4<f32>, weighed: vec4<f32>) -> Surrogate {
    return surrogate(log_probability - targets[p.choice_targets + number * p.section + at], weighed);
}

@if(!continuous)
fn evaluate(outputs: u32, at: u32, mask: vec4<u32>, weighed: vec4<f32>) -> Chosen {
    var chosen = Chosen(ZERO, ZERO, ZERO, ZERO);
    var number = 0u;
    var before = 1u;
    var first = 0u;
    while (first < p.actions) {
        let end = end_of(p.starts, first, p.actions);
        let own = option(outputs, at, mask, first, end, before);
        chosen.entropy += own.entropy;
        chosen.log_probability += own.log_probability;
        if (p.choices > 0u) {
            let found = of_choice(number, at, own.log_probability, weighed);
            chosen.objective += found.objective;
            chosen.clipped += found.clipped;
        }
        number += 1u;
        before *= end - first;
        first = end;
    }
    return chosen;
}

// Derivatives by which the gradient at the actor's head is computed.
struct Slopes {
    // By the log-probability of the whole action.
    policy: vec4<f32>,
    // Minus that by the entropy of a choice.
    entropy: vec4<f32>,
    // Factor on the surrogates' slopes of single choices.
    share: vec4<f32>,
}

// Writes the gradient at the actor's head.
@if(!continuous)
fn descend(outputs: u32, at: u32, mask: vec4<u32>, slopes: Slopes, weighed: vec4<f32>) {
    var number = 0u;
    var before = 1u;
    var first = 0u;
    while (first < p.actions) {
        let end = end_of(p.starts, first, p.actions);
        let own = option(outputs, at, mask, first, end, before);
        var slope = slopes.policy;
        if (p.choices > 0u) {
            let counts = slopes.share != ZERO;
            slope = select(ZERO, of_choice(number, at, own.log_probability, weighed).slope * slopes.share, counts);
        }
        for (var j = first; j < end; j++) {
            let lp = logit(outputs, j) - own.log_total;
            let probability = exp(lp);
            let score = select(ZERO, ONE, own.taken == vec4<u32>(j - first)) - probability;
            let g = slope * score + slopes.entropy * probability * (lp + own.entropy);
            put_logit_gradient(outputs, j, select(ZERO, g, allowed(mask, j)));
        }
        number += 1u;
        before *= end - first;
        first = end;
    }
}

// Half of ln(2 pi), and that plus a half.
@if(continuous) const HALF_LOG_TWO_PI = 0.9189385332;
@if(continuous) const HALF_LOG_TWO_PI_E = 1.4189385332;

// Real number d of the row.
@if(continuous)
fn taken(at: u32, d: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(actions[(at / batch.quads * p.actions + d) * batch.quads + at % batch.quads]);
}

// Distance of real number d from the mean, in standard deviations.
@if(continuous)
fn apart(outputs: u32, at: u32, d: u32) -> vec4<f32> {
    return (taken(at, d) - logit(outputs, d)) * exp(-log_deviation(outputs, d));
}

@if(continuous)
fn log_deviation(outputs: u32, d: u32) -> vec4<f32> {
    return logit(outputs, p.actions + d);
}

@if(continuous)
fn evaluate(outputs: u32, at: u32, mask: vec4<u32>, weighed: vec4<f32>) -> Chosen {
    var chosen = Chosen(ZERO, ZERO, ZERO, ZERO);
    for (var d = 0u; d < p.actions; d++) {
        let z = apart(outputs, at, d);
        let log_std = log_deviation(outputs, d);
        chosen.log_probability -= 0.5 * z * z + log_std + HALF_LOG_TWO_PI;
        chosen.entropy += log_std + HALF_LOG_TWO_PI_E;
        @if(squash) {
            // The same term as in ppo/sample, so that it cancels in the ratio.
            chosen.log_probability -= log_slope(taken(at, d));
            chosen.entropy += mean_log_slope(logit(outputs, d), exp(log_std));
        }
    }
    let counts = mask != vec4<u32>(0u);
    return Chosen(select(ZERO, chosen.log_probability, counts), select(ZERO, chosen.entropy, counts), ZERO, ZERO);
}

@if(continuous)
fn descend(outputs: u32, at: u32, mask: vec4<u32>, slopes: Slopes, weighed: vec4<f32>) {
    let counts = mask != vec4<u32>(0u);
    for (var d = 0u; d < p.actions; d++) {
        let z = apart(outputs, at, d);
        var mean = slopes.policy * z * exp(-log_deviation(outputs, d));
        var log_std = slopes.policy * (z * z - ONE) - slopes.entropy;
        @if(squash) {
            let bent = slopes_of_mean(logit(outputs, d), exp(log_deviation(outputs, d)));
            mean -= slopes.entropy * bent.mean;
            log_std -= slopes.entropy * bent.log_std;
        }
        put_logit_gradient(outputs, d, select(ZERO, mean, counts));
        put_logit_gradient(outputs, p.actions + d, select(ZERO, log_std, counts));
    }
}

// A quad of rows in the rollout.
struct LossRow {
    // Its outputs, as lib/heads counts them.
    outputs: u32,
    // Its place in the sections of the targets, the masks and the old values.
    at: u32,
    // Its place among HAPPO's factors.
    factor: u32,
    agent: u32,
    // First statistic of the agent's networks.
    own: u32,
    // 1 / rows that count for the agent's networks (ppo/advantage_stats), times the loss scale, so that small gradients do not
    // underflow in f16 (ppo/loss_scale).
    share: f32,
    mask: vec4<u32>,
    active_rows: vec4<bool>,
}

// Quad `row` of the batch. One that does not exist counts for nothing.
fn loss_row(row: u32, outputs: u32, in_batch: bool) -> LossRow {
    let per_slot = batch.agents * batch.quads;
    let listed = listed_slot(row);
    // A shuffled sequence may list slots after the last step: their rows repeat that step and do not count.
    let exists = batch.order == 0u || listed < batch.recurrent.steps;
    let slot = select(batch.recurrent.steps - 1u, listed, exists);
    var found: LossRow;
    found.outputs = outputs;
    found.at = slot * per_slot + row % per_slot;
    found.factor = p.factors + slot * batch.quads + row % batch.quads;
    found.agent = row % per_slot / batch.quads;
    found.own = found.agent % p.groups * GROUP;
    found.share = scalars[p.groups * GROUP + batch.loss.minibatch * batch.agents + found.agent] * scalars[LOSS_SCALE];
    found.mask = dones_and_masks[p.masks + found.at];
    found.active_rows = (found.mask != vec4<u32>(0u)) & vec4<bool>(exists && in_batch);
    @if(agent_steps) {
        found.active_rows = found.active_rows & vec4<bool>(found.agent + 1u == batch.loss.agent_step);
    }
    return found;
}

// Sums over the quad of the policy's loss without entropy, its entropy, the k3 estimate of the KL divergence, and the rows outside the
// clip range.
struct PolicyTerms {
    loss: f32,
    entropy: f32,
    kl: f32,
    clipped: f32,
}

// The policy's loss. Writes its gradient by the actor's outputs.
fn policy_loss(row: LossRow) -> PolicyTerms {
    let at = row.at;
    let advantage = (targets[p.section + at] - scalars[row.own + ADVANTAGE_MEAN]) * scalars[row.own + ADVANTAGE_SCALE];
    @if(agent_steps) let factor = statistics[row.factor];
    @if(agent_steps) let weighed = advantage * factor;
    @if(!agent_steps) let weighed = advantage;
    let chosen = evaluate(row.outputs, at, row.mask, weighed);
    let log_ratio = chosen.log_probability - targets[at];
    let whole = surrogate(log_ratio, weighed);
    @if(agent_steps) {
        if (batch.loss.update_factors > 0u && row.agent + 1u == batch.loss.agent_step) {
            let before_at = row.factor + p.section / batch.agents;
            if (batch.loss.update_factors == 1u) {
                statistics[before_at] = chosen.log_probability;
            } else {
                let moved = exp(chosen.log_probability - statistics[before_at]);
                statistics[row.factor] = factor * select(ONE, moved, row.active_rows);
            }
        }
    }
    let by_choice = p.choices > 0u;
    // The entropy is the sum of the choices' entropies with the ratio of the whole action, and their mean with a ratio per choice.
    let choices = f32(max(p.choices, 1u));
    let objective = select(whole.objective, chosen.objective, by_choice);
    let outside = select(whole.clipped, chosen.clipped / choices, by_choice);
    let entropy = chosen.entropy / choices;
    let slopes = Slopes(
        select(ZERO, whole.slope * row.share, row.active_rows),
        select(ZERO, vec4<f32>(scalars[ENTROPY] * row.share / choices), row.active_rows),
        select(ZERO, vec4<f32>(row.share), row.active_rows),
    );
    descend(row.outputs, at, row.mask, slopes, weighed);
    return PolicyTerms(
        -add(select(ZERO, objective, row.active_rows)),
        add(select(ZERO, entropy, row.active_rows)),
        add(select(ZERO, whole.ratio - ONE - log_ratio, row.active_rows)),
        add(select(ZERO, outside, row.active_rows)),
    );
}

// The sum of the value's loss over the quad. Writes its gradient by the critic's output.
fn value_loss(row: LossRow) -> f32 {
    let value = value_of(row.outputs);
    let old = old_values[row.at];
    let goal = (targets[2u * p.section + row.at] - scalars[row.own + MEAN]) / scalars[row.own + DEVIATION];
    let error = goal - value;
    let error_clipped = goal - old - clamp(value - old, vec4<f32>(-p.value_clip), vec4<f32>(p.value_clip));
    let loss = huber(error);
    let loss_clipped = huber(error_clipped);
    let value_slope = -clamp(error, vec4<f32>(-p.huber), vec4<f32>(p.huber)) * (p.value * row.share);
    // Inside the clip range both losses are equal except for rounding, which must not decide.
    let inside = abs(value - old) <= vec4<f32>(p.value_clip);
    let counts = inside | (loss >= loss_clipped);
    put_value_gradient(row.outputs, select(ZERO, value_slope, counts & row.active_rows));
    return add(select(ZERO, max(loss, loss_clipped), row.active_rows));
}
