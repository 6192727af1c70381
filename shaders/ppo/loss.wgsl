// The PPO losses and their gradient at both heads, for four rows an invocation: clipped surrogate, clipped Huber value
// loss, entropy, together with the statistics that the metrics show.

import package::constants::{WG, TILE};
import package::lib::branch::{end_of, choice_of};
import package::lib::network::{Batch, place};
import package::lib::quad::{Quad, to_quad};

struct Loss {
    actions: u32,
    // f32 quads of one section of the targets (log-probabilities, advantages, returns).
    section: u32,
    // Where the masks begin, in vec4s of the signals.
    masks: u32,
    // Rows of the gradient buffer that take the gradient of the logits and of the value.
    grad_actor: u32,
    grad_critic: u32,
    clip: f32,
    value_clip: f32,
    huber: f32,
    value: f32,
    // A bit for every logit that begins a choice.
    starts: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> p: Loss;
@group(0) @binding(2) var<storage, read> head: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> signals: array<vec4<u32>>;
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
        let at = batch.first_slot * batch.agents * batch.quads + row;
        let out = place(row, batch.grads);
        // What is stored in few bits is scaled up, so that small gradients do not vanish (ppo/loss_scale).
        // 1 / rows that count for the agent's networks (ppo/moments).
        let agent = row % (batch.agents * batch.quads) / batch.quads;
        let share = scalars[16u + batch.minibatch * batch.agents + agent] * scalars[9];
        let mask = signals[p.masks + at];
        let active_rows = mask != vec4<u32>(0u);
        let action = actions[at];
        let advantage = (targets[p.section + at] - scalars[5]) * scalars[6];

        // Policy.
        let logits = batch.head_actor + row;
        var entropy = ZERO;
        var log_probability = ZERO;
        var before = 1u;
        var first = 0u;
        while (first < p.actions) {
            let end = end_of(p.starts, first, p.actions);
            let log_total = log_sum(logits, first, end, mask);
            let choice = choice_of(action, before, end - first);
            for (var j = first; j < end; j++) {
                let lp = head[logits + j * s] - log_total;
                let may = allowed(mask, j);
                entropy -= select(ZERO, exp(lp) * lp, may);
                log_probability += select(ZERO, lp, may & (choice == vec4<u32>(j - first)));
            }
            before *= end - first;
            first = end;
        }
        let log_ratio = log_probability - targets[at];
        let ratio = exp(log_ratio);
        let plain = ratio * advantage;
        let bounded = clamp(ratio, vec4<f32>(1.0 - p.clip), vec4<f32>(1.0 + p.clip)) * advantage;
        let slope = select(ZERO, -plain, plain <= bounded) * share;
        before = 1u;
        first = 0u;
        while (first < p.actions) {
            let end = end_of(p.starts, first, p.actions);
            let log_total = log_sum(logits, first, end, mask);
            let choice = choice_of(action, before, end - first);
            var own_entropy = ZERO;
            for (var j = first; j < end; j++) {
                let lp = head[logits + j * s] - log_total;
                own_entropy -= select(ZERO, exp(lp) * lp, allowed(mask, j));
            }
            for (var j = first; j < end; j++) {
                let lp = head[logits + j * s] - log_total;
                let probability = exp(lp);
                let score = select(ZERO, ONE, choice == vec4<u32>(j - first)) - probability;
                let g = slope * score + scalars[11] * share * probability * (lp + own_entropy);
                grads[out + (p.grad_actor + j) * TILE] = to_quad(select(ZERO, g, allowed(mask, j)));
            }
            before *= end - first;
            first = end;
        }

        // Value.
        let value = head[batch.head_critic + row];
        let old = values[at];
        let goal = (targets[2u * p.section + at] - scalars[3]) / scalars[4];
        let error = goal - value;
        let error_clipped = goal - old - clamp(value - old, vec4<f32>(-p.value_clip), vec4<f32>(p.value_clip));
        let loss = huber(error);
        let loss_clipped = huber(error_clipped);
        let value_slope = -clamp(error, vec4<f32>(-p.huber), vec4<f32>(p.huber)) * (p.value * share);
        // Inside the clip range both are the same number but for rounding, which must not decide.
        let inside = abs(value - old) <= vec4<f32>(p.value_clip);
        let counts = inside | (loss >= loss_clipped);
        grads[out + p.grad_critic * TILE] = to_quad(select(ZERO, value_slope, counts & active_rows));

        mine = vec4<f32>(
            -add(select(ZERO, min(plain, bounded), active_rows)),
            add(select(ZERO, max(loss, loss_clipped), active_rows)),
            add(entropy),
            add(select(ZERO, ratio - ONE - log_ratio, active_rows)),
        );
        mine_clipped = vec4<f32>(add(select(ZERO, ONE, active_rows & (abs(ratio - ONE) > vec4<f32>(p.clip)))), 0.0, 0.0, 0.0);
    }
    sums[lane] = mine;
    clipped[lane] = mine_clipped;
    workgroupBarrier();
    if (lane == 0u) {
        var sum = ZERO;
        var sum_clipped = ZERO;
        for (var other = 0u; other < WG; other++) {
            sum += sums[other];
            sum_clipped += clipped[other];
        }
        // As many places as a full micro-batch has workgroups, though the last one may have fewer.
        let places = (batch.stride + WG - 1u) / WG;
        let entry = (batch.index * places + group.x) * 2u;
        statistics[entry] = sum;
        statistics[entry + 1u] = sum_clipped;
    }
}
