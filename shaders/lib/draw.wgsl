// Draws one action a row from the softmax of its logits and stores its log-probability. Masked actions have probability 0. An action of
// several choices is drawn choice by choice; the first choice is the fastest digit of the action's number. One invocation takes a
// quad: four environments of one agent. Logits, masks and actions are in buffers of quads (ppo/sample), or where a rollout kernel has them.

import package::lib::branch::end_of;
import package::lib::random::{threefry, unit};
@if(squash) import package::lib::squash::{squashed, log_slope};
@if(in_rollout) import package::lib::block::{values, value_at};
@if(in_rollout) import package::lib::episode::dones_and_masks;

struct Sample {
    // The step that ppo/sample draws.
    step: u32,
    steps: u32,
    agents: u32,
    quads: u32,
    // Logits, or real numbers of an action.
    actions: u32,
    // vec4s from one logit of a row to the next.
    stride: u32,
    // 1: the most probable action, 0: a random one.
    greedy: u32,
    // First vec4 of the masks in dones_and_masks.
    masks: u32,
    seed_low: u32,
    seed_high: u32,
    // A bit for every logit that begins a choice.
    starts: u32,
    // First vec4 of the choices' log-probabilities in the targets, a section per choice; 0: they are not stored.
    choice_targets: u32,
}

@if(!in_rollout) @group(0) @binding(0) var<uniform> p: Sample;
@if(!in_rollout) @group(0) @binding(1) var<storage, read> head: array<vec4<f32>>;
@if(!in_rollout) @group(0) @binding(2) var<storage, read> dones_and_masks: array<vec4<u32>>;
@if(!in_rollout) @group(0) @binding(3) var<storage, read> iteration: array<u32>;
@if(!in_rollout) @group(0) @binding(4) var<storage, read_write> actions: array<vec4<u32>>;
@if(!in_rollout) @group(0) @binding(5) var<storage, read_write> targets: array<vec4<f32>>;
@if(!in_rollout && squash) @group(0) @binding(6) var<storage, read_write> draws: array<vec4<f32>>;

// An environment's bindings end below 20.
@if(in_rollout) @group(0) @binding(1) var<storage, read_write> actions: array<u32>;
@if(in_rollout) @group(0) @binding(20) var<uniform> p: Sample;
@if(in_rollout) @group(0) @binding(21) var<storage, read> iteration: array<u32>;
@if(in_rollout) @group(0) @binding(22) var<storage, read_write> targets: array<vec4<f32>>;
@if(in_rollout && squash) @group(0) @binding(23) var<storage, read_write> draws: array<vec4<f32>>;

// Output `j` of the network at `place`: a row of the head, or a quad of the block.
@if(!in_rollout)
fn output(j: u32, place: u32) -> vec4<f32> {
    return head[j * p.stride + place];
}

@if(in_rollout)
fn output(j: u32, place: u32) -> vec4<f32> {
    return values[value_at(j, place)];
}

@if(!in_rollout)
fn mask_of(at: u32) -> vec4<u32> {
    return dones_and_masks[p.masks + at];
}

@if(in_rollout)
fn mask_of(at: u32) -> vec4<u32> {
    let first = 4u * (p.masks + at);
    return vec4<u32>(
        dones_and_masks[first],
        dones_and_masks[first + 1u],
        dones_and_masks[first + 2u],
        dones_and_masks[first + 3u],
    );
}

@if(!in_rollout)
fn put_action(at: u32, action: vec4<u32>) {
    actions[at] = action;
}

@if(in_rollout)
fn put_action(at: u32, action: vec4<u32>) {
    actions[4u * at] = action.x;
    actions[4u * at + 1u] = action.y;
    actions[4u * at + 2u] = action.z;
    actions[4u * at + 3u] = action.w;
}

// The action of one environment.
@if(in_rollout)
fn drawn(at: u32) -> u32 {
    return actions[at];
}

fn allowed(mask: vec4<u32>, action: u32) -> vec4<bool> {
    return (mask & vec4<u32>(1u << action)) != vec4<u32>(0u);
}

// Draws for row `row` of the agents' rows in step `step`, whose outputs are at `place`.
fn draw(step: u32, row: u32, place: u32) {
    let rows = p.agents * p.quads;
    @if(continuous) draw_reals(step, row, rows, place);
    @if(!continuous) draw_choices(step, row, rows, place);
}

@if(!continuous)
fn draw_choices(step: u32, row: u32, rows: u32, outputs: u32) {
    let at = step * rows + row;
    let mask = mask_of(at);
    let now = iteration[0] * p.steps + step;
    let key = vec2<u32>(p.seed_low, p.seed_high);
    var chosen = vec4<u32>(0u);
    var log_probability = vec4<f32>(0.0);
    var before = 1u;
    var number = 0u;
    var first = 0u;
    while (first < p.actions) {
        let end = end_of(p.starts, first, p.actions);
        var top = vec4<f32>(-3.4e38);
        for (var j = first; j < end; j++) {
            top = select(top, max(top, output(j, outputs)), allowed(mask, j));
        }
        var total = vec4<f32>(0.0);
        for (var j = first; j < end; j++) {
            total += select(vec4<f32>(0.0), exp(output(j, outputs) - top), allowed(mask, j));
        }
        // Rows are numbered agent by agent, choice by choice; every (row, step) pair has random bits of its own.
        let place = (number * rows + row) * 2u;
        let bits01 = threefry(key, vec2<u32>(now, place));
        let bits23 = threefry(key, vec2<u32>(now, place + 1u));
        let draw = vec4<f32>(unit(bits01.x), unit(bits01.y), unit(bits23.x), unit(bits23.y)) * total;

        var choice = vec4<u32>(0u);
        var logit = vec4<f32>(0.0);
        var open = vec4<bool>(true);
        var sum = vec4<f32>(0.0);
        for (var j = first; j < end; j++) {
            let z = output(j, outputs);
            let may = allowed(mask, j);
            sum += select(vec4<f32>(0.0), exp(z - top), may);
            var take: vec4<bool>;
            if (p.greedy == 1u) {
                take = open & may & (z == top);
                open = open & !take;
            } else {
                // The last allowed action is kept until the sum passes the draw: rounding cannot leave a row without an action.
                take = open & may;
                open = open & !(take & (draw < sum));
            }
            choice = select(choice, vec4<u32>(j - first), take);
            logit = select(logit, z, take);
        }
        chosen += choice * before;
        // An agent without allowed actions takes action 0, with log-probability 0.
        let own = select(logit - top - log(total), vec4<f32>(0.0), total == vec4<f32>(0.0));
        log_probability += own;
        if (p.choice_targets > 0u) {
            targets[p.choice_targets + number * p.steps * rows + at] = own;
        }
        before *= end - first;
        number += 1u;
        first = end;
    }
    put_action(at, chosen);
    targets[at] = log_probability;
}

// Draws real numbers from normal distributions (Box and Muller). With squashing the environment gets their tanh; the loss gets the
// numbers themselves, which cannot be recovered from tanh near -1 and 1.
@if(continuous)
fn draw_reals(step: u32, row: u32, rows: u32, outputs: u32) {
    let at = step * rows + row;
    let idle = mask_of(at) == vec4<u32>(0u);
    let now = iteration[0] * p.steps + step;
    let key = vec2<u32>(p.seed_low, p.seed_high);
    var log_probability = vec4<f32>(0.0);
    for (var d = 0u; d < p.actions; d++) {
        let place = (d * rows + row) * 2u;
        let drawn = vec4<f32>(normals(key, vec2<u32>(now, place)), normals(key, vec2<u32>(now, place + 1u)));
        let z = select(drawn, vec4<f32>(0.0), p.greedy == 1u);
        let log_std = output(p.actions + d, outputs);
        let taken = select(output(d, outputs) + exp(log_std) * z, vec4<f32>(0.0), idle);
        log_probability -= 0.5 * z * z + log_std + 0.9189385332;
        let slot = (at / p.quads * p.actions + d) * p.quads + at % p.quads;
        @if(squash) {
            log_probability -= log_slope(taken);
            draws[slot] = taken;
            put_action(slot, bitcast<vec4<u32>>(squashed(taken)));
        }
        @if(!squash) {
            put_action(slot, bitcast<vec4<u32>>(taken));
        }
    }
    targets[at] = select(log_probability, vec4<f32>(0.0), idle);
}

@if(continuous)
fn normals(key: vec2<u32>, counter: vec2<u32>) -> vec2<f32> {
    let bits = threefry(key, counter);
    // 1 - u is never 0.
    let radius = sqrt(-2.0 * log(1.0 - unit(bits.x)));
    let angle = 6.283185307 * unit(bits.y);
    return radius * vec2<f32>(cos(angle), sin(angle));
}
