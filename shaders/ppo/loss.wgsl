// PPO losses and their gradients at both heads, for four rows an invocation: clipped surrogate, clipped Huber value loss, entropy, and
// the statistics for the metrics. The surrogate is that of the whole action, or the sum of those of its choices. In an agent step of
// HAPPO only one agent's rows count, and the probability ratios of the agents before it, stored behind the statistics, multiply its
// surrogate. Its own ratio, by which it multiplies them in turn, is that of its policies after and before its epochs.

import package::constants::{WG, TILE};
import package::lib::branch::{end_of, choice_of};
import package::lib::network::{Batch, place};
import package::lib::quad::{Quad, to_quad};
@if(squash) import package::lib::squash::{log_slope, mean_log_slope, slopes_of_mean};
import package::scalars::{MEAN, DEVIATION, ADVANTAGE_MEAN, ADVANTAGE_SCALE, LOSS_SCALE, ENTROPY, STOPPED, GROUP};

struct Loss {
    // Logits, or real numbers of an action.
    actions: u32,
    // f32 quads of one section of the targets (log-probabilities, advantages, returns).
    section: u32,
    // First vec4 of the masks in dones_and_masks.
    masks: u32,
    // First row of the gradient buffer for the logits, and the row for the value.
    grad_actor: u32,
    grad_critic: u32,
    clip: f32,
    value_clip: f32,
    huber: f32,
    value: f32,
    // A bit for every logit that begins a choice.
    starts: u32,
    // HAPPO: first vec4 of the factors in the statistics' buffer, [slot][env]; the log-probabilities before an agent's epochs follow.
    factors: u32,
    // Choices whose ratios are clipped one by one; 0: the ratio of the whole action is.
    choices: u32,
    // First vec4 of the choices' log-probabilities in the targets, a section per choice.
    choice_targets: u32,
    // Groups of agents that share networks: 1, or one per agent.
    groups: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> p: Loss;
@group(0) @binding(2) var<storage, read> head: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dones_and_masks: array<vec4<u32>>;
// For squashed actions the draws before tanh.
@group(0) @binding(4) var<storage, read> actions: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> scalars: array<f32>;
@group(0) @binding(8) var<storage, read_write> grads: array<Quad>;
@group(0) @binding(9) var<storage, read_write> statistics: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, WG>;
var<workgroup> clipped: array<vec4<f32>, WG>;

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
fn log_sum(logits: u32, first: u32, end: u32, mask: vec4<u32>) -> vec4<f32> {
    var top = vec4<f32>(-3.4e38);
    for (var j = first; j < end; j++) {
        top = select(top, max(top, head[logits + j * batch.stride]), allowed(mask, j));
    }
    var total = ZERO;
    for (var j = first; j < end; j++) {
        total += select(ZERO, exp(head[logits + j * batch.stride] - top), allowed(mask, j));
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
fn slot_of(row: u32) -> u32 {
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
fn option(logits: u32, at: u32, mask: vec4<u32>, first: u32, end: u32, before: u32) -> Option {
    var found = Option(choice_of(actions[at], before, end - first), log_sum(logits, first, end, mask), ZERO, ZERO);
    for (var j = first; j < end; j++) {
        let lp = head[logits + j * batch.stride] - found.log_total;
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
fn evaluate(logits: u32, at: u32, mask: vec4<u32>, weighed: vec4<f32>) -> Chosen {
    var chosen = Chosen(ZERO, ZERO, ZERO, ZERO);
    var number = 0u;
    var before = 1u;
    var first = 0u;
    while (first < p.actions) {
        let end = end_of(p.starts, first, p.actions);
        let own = option(logits, at, mask, first, end, before);
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
fn descend(logits: u32, at: u32, mask: vec4<u32>, slopes: Slopes, weighed: vec4<f32>, out: u32) {
    var number = 0u;
    var before = 1u;
    var first = 0u;
    while (first < p.actions) {
        let end = end_of(p.starts, first, p.actions);
        let own = option(logits, at, mask, first, end, before);
        var slope = slopes.policy;
        if (p.choices > 0u) {
            let counts = slopes.share != ZERO;
            slope = select(ZERO, of_choice(number, at, own.log_probability, weighed).slope * slopes.share, counts);
        }
        for (var j = first; j < end; j++) {
            let lp = head[logits + j * batch.stride] - own.log_total;
            let probability = exp(lp);
            let score = select(ZERO, ONE, own.taken == vec4<u32>(j - first)) - probability;
            let g = slope * score + slopes.entropy * probability * (lp + own.entropy);
            grads[out + j * TILE] = to_quad(select(ZERO, g, allowed(mask, j)));
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
fn apart(logits: u32, at: u32, d: u32) -> vec4<f32> {
    return (taken(at, d) - head[logits + d * batch.stride]) * exp(-log_deviation(logits, d));
}

@if(continuous)
fn log_deviation(logits: u32, d: u32) -> vec4<f32> {
    return head[logits + (p.actions + d) * batch.stride];
}

@if(continuous)
fn evaluate(logits: u32, at: u32, mask: vec4<u32>, weighed: vec4<f32>) -> Chosen {
    var chosen = Chosen(ZERO, ZERO, ZERO, ZERO);
    for (var d = 0u; d < p.actions; d++) {
        let z = apart(logits, at, d);
        let log_std = log_deviation(logits, d);
        chosen.log_probability -= 0.5 * z * z + log_std + HALF_LOG_TWO_PI;
        chosen.entropy += log_std + HALF_LOG_TWO_PI_E;
        @if(squash) {
            // The same term as in ppo/sample, so that it cancels in the ratio.
            chosen.log_probability -= log_slope(taken(at, d));
            chosen.entropy += mean_log_slope(head[logits + d * batch.stride], exp(log_std));
        }
    }
    let counts = mask != vec4<u32>(0u);
    return Chosen(select(ZERO, chosen.log_probability, counts), select(ZERO, chosen.entropy, counts), ZERO, ZERO);
}

@if(continuous)
fn descend(logits: u32, at: u32, mask: vec4<u32>, slopes: Slopes, weighed: vec4<f32>, out: u32) {
    let counts = mask != vec4<u32>(0u);
    for (var d = 0u; d < p.actions; d++) {
        let z = apart(logits, at, d);
        var mean = slopes.policy * z * exp(-log_deviation(logits, d));
        var log_std = slopes.policy * (z * z - ONE) - slopes.entropy;
        @if(squash) {
            let bent = slopes_of_mean(head[logits + d * batch.stride], exp(log_deviation(logits, d)));
            mean -= slopes.entropy * bent.mean;
            log_std -= slopes.entropy * bent.log_std;
        }
        grads[out + d * TILE] = to_quad(select(ZERO, mean, counts));
        grads[out + (p.actions + d) * TILE] = to_quad(select(ZERO, log_std, counts));
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = id.x;
    var mine = ZERO;
    var mine_clipped = ZERO;
    if (row < batch.rows) {
        let s = batch.stride;
        let per_slot = batch.agents * batch.quads;
        let listed = slot_of(row);
        // A shuffled sequence may list slots after the last step: their rows repeat that step and do not count.
        let exists = batch.order == 0u || listed < batch.recurrent.steps;
        let slot = select(batch.recurrent.steps - 1u, listed, exists);
        let at = slot * per_slot + row % per_slot;
        let out = place(row, batch.grads);
        // 1 / rows that count for the agent's networks (ppo/advantage_stats), times the loss scale, so that small gradients do not
        // underflow in f16 (ppo/loss_scale).
        let agent = row % per_slot / batch.quads;
        let share = scalars[p.groups * GROUP + batch.loss.minibatch * batch.agents + agent] * scalars[LOSS_SCALE];
        // First statistic of the agent's networks.
        let own = agent % p.groups * GROUP;
        let mask = dones_and_masks[p.masks + at];
        var active_rows = (mask != vec4<u32>(0u)) & vec4<bool>(exists);
        @if(agent_steps) {
            active_rows = active_rows & vec4<bool>(agent + 1u == batch.loss.agent_step);
        }
        let advantage = (targets[p.section + at] - scalars[own + ADVANTAGE_MEAN]) * scalars[own + ADVANTAGE_SCALE];

        // Policy.
        @if(agent_steps) let factor_at = p.factors + slot * batch.quads + row % batch.quads;
        @if(agent_steps) let factor = statistics[factor_at];
        @if(agent_steps) let weighed = advantage * factor;
        @if(!agent_steps) let weighed = advantage;
        let logits = batch.forward.head_actor + row;
        let chosen = evaluate(logits, at, mask, weighed);
        let log_ratio = chosen.log_probability - targets[at];
        let whole = surrogate(log_ratio, weighed);
        @if(agent_steps) {
            if (batch.loss.update_factors > 0u && agent + 1u == batch.loss.agent_step) {
                let before_at = factor_at + p.section / batch.agents;
                if (batch.loss.update_factors == 1u) {
                    statistics[before_at] = chosen.log_probability;
                } else {
                    let moved = exp(chosen.log_probability - statistics[before_at]);
                    statistics[factor_at] = factor * select(ONE, moved, active_rows);
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
            select(ZERO, whole.slope * share, active_rows),
            select(ZERO, vec4<f32>(scalars[ENTROPY] * share / choices), active_rows),
            select(ZERO, vec4<f32>(share), active_rows),
        );
        descend(logits, at, mask, slopes, weighed, out + p.grad_actor * TILE);

        // Value.
        let value = head[batch.forward.head_critic + row];
        let old = values[at];
        let goal = (targets[2u * p.section + at] - scalars[own + MEAN]) / scalars[own + DEVIATION];
        let error = goal - value;
        let error_clipped = goal - old - clamp(value - old, vec4<f32>(-p.value_clip), vec4<f32>(p.value_clip));
        let loss = huber(error);
        let loss_clipped = huber(error_clipped);
        let value_slope = -clamp(error, vec4<f32>(-p.huber), vec4<f32>(p.huber)) * (p.value * share);
        // Inside the clip range both losses are equal except for rounding, which must not decide.
        let inside = abs(value - old) <= vec4<f32>(p.value_clip);
        let counts = inside | (loss >= loss_clipped);
        grads[out + p.grad_critic * TILE] = to_quad(select(ZERO, value_slope, counts & active_rows));

        mine = vec4<f32>(
            -add(select(ZERO, objective, active_rows)),
            add(select(ZERO, max(loss, loss_clipped), active_rows)),
            add(select(ZERO, entropy, active_rows)),
            add(select(ZERO, whole.ratio - ONE - log_ratio, active_rows)),
        );
        mine_clipped = vec4<f32>(add(select(ZERO, outside, active_rows)), 0.0, 0.0, 0.0);
    }
    sums[lane] = mine;
    clipped[lane] = mine_clipped;
    workgroupBarrier();
    // Zeros after the stop of this rollout's updates (ppo/epoch).
    @if(agent_steps) let writes = batch.loss.update_factors == 0u;
    @if(!agent_steps) let writes = true;
    if (lane == 0u && writes) {
        var sum = ZERO;
        var sum_clipped = ZERO;
        for (var other = 0u; other < WG; other++) {
            sum += sums[other];
            sum_clipped += clipped[other];
        }
        // One place for every workgroup of a full micro-batch; the last micro-batch may have fewer workgroups.
        let places = (batch.stride + WG - 1u) / WG;
        let entry = (batch.loss.index * places + group.x) * 2u;
        let counts = vec4<bool>(scalars[STOPPED] != 1.0);
        statistics[entry] = select(ZERO, sum, counts);
        statistics[entry + 1u] = select(ZERO, sum_clipped, counts);
    }
}
