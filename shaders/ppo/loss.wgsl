// The PPO losses and their gradient at both heads, for four rows an invocation: clipped surrogate, clipped Huber value
// loss, entropy, together with the statistics that the metrics show.

import package::constants::{WG, TILE};
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
    pad0: u32,
    pad1: u32,
    pad2: u32,
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
        var top = vec4<f32>(-3.4e38);
        for (var j = 0u; j < p.actions; j++) {
            top = select(top, max(top, head[logits + j * s]), allowed(mask, j));
        }
        var total = ZERO;
        for (var j = 0u; j < p.actions; j++) {
            total += select(ZERO, exp(head[logits + j * s] - top), allowed(mask, j));
        }
        let log_total = log(total) + top;
        var entropy = ZERO;
        var log_probability = ZERO;
        for (var j = 0u; j < p.actions; j++) {
            let lp = head[logits + j * s] - log_total;
            entropy -= select(ZERO, exp(lp) * lp, allowed(mask, j));
            log_probability = select(log_probability, lp, action == vec4<u32>(j));
        }
        let log_ratio = log_probability - targets[at];
        let ratio = exp(log_ratio);
        let plain = ratio * advantage;
        let bounded = clamp(ratio, vec4<f32>(1.0 - p.clip), vec4<f32>(1.0 + p.clip)) * advantage;
        let slope = select(ZERO, -plain, plain <= bounded) * share;
        for (var j = 0u; j < p.actions; j++) {
            let lp = head[logits + j * s] - log_total;
            let probability = exp(lp);
            let score = select(ZERO, ONE, action == vec4<u32>(j)) - probability;
            let g = slope * score + scalars[11] * share * probability * (lp + entropy);
            grads[out + (p.grad_actor + j) * TILE] = to_quad(select(ZERO, g, allowed(mask, j)));
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
