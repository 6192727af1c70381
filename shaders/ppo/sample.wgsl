// Draws one action a row from the softmax of its logits and stores its log-probability. Masked actions have probability 0. An action of
// several choices is drawn choice by choice; the first choice is the fastest digit of the action's number. One invocation takes four
// environments of one agent.

import package::constants::WG;
import package::lib::branch::end_of;
import package::lib::random::{threefry, unit};
@if(squash) import package::lib::squash::{squashed, log_slope};

struct Sample {
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

@group(0) @binding(0) var<uniform> p: Sample;
@group(0) @binding(1) var<storage, read> head: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dones_and_masks: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> iteration: array<u32>;
@group(0) @binding(4) var<storage, read_write> actions: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> targets: array<vec4<f32>>;
@if(squash) @group(0) @binding(6) var<storage, read_write> draws: array<vec4<f32>>;

fn allowed(mask: vec4<u32>, action: u32) -> vec4<bool> {
    return (mask & vec4<u32>(1u << action)) != vec4<u32>(0u);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    let rows = p.agents * p.quads;
    if (row >= rows) {
        return;
    }
    @if(continuous) draw_reals(row, rows);
    @if(!continuous) draw_choices(row, rows);
}

@if(!continuous)
fn draw_choices(row: u32, rows: u32) {
    let at = p.step * rows + row;
    let mask = dones_and_masks[p.masks + at];
    let now = iteration[0] * p.steps + p.step;
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
            top = select(top, max(top, head[j * p.stride + row]), allowed(mask, j));
        }
        var total = vec4<f32>(0.0);
        for (var j = first; j < end; j++) {
            total += select(vec4<f32>(0.0), exp(head[j * p.stride + row] - top), allowed(mask, j));
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
            let z = head[j * p.stride + row];
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
    actions[at] = chosen;
    targets[at] = log_probability;
}

// Draws real numbers from normal distributions (Box and Muller). With squashing the environment gets their tanh; the loss gets the
// numbers themselves, which cannot be recovered from tanh near -1 and 1.
@if(continuous)
fn draw_reals(row: u32, rows: u32) {
    let at = p.step * rows + row;
    let idle = dones_and_masks[p.masks + at] == vec4<u32>(0u);
    let now = iteration[0] * p.steps + p.step;
    let key = vec2<u32>(p.seed_low, p.seed_high);
    var log_probability = vec4<f32>(0.0);
    for (var d = 0u; d < p.actions; d++) {
        let place = (d * rows + row) * 2u;
        let drawn = vec4<f32>(normals(key, vec2<u32>(now, place)), normals(key, vec2<u32>(now, place + 1u)));
        let z = select(drawn, vec4<f32>(0.0), p.greedy == 1u);
        let log_std = head[(p.actions + d) * p.stride + row];
        let taken = select(head[d * p.stride + row] + exp(log_std) * z, vec4<f32>(0.0), idle);
        log_probability -= 0.5 * z * z + log_std + 0.9189385332;
        let slot = (at / p.quads * p.actions + d) * p.quads + at % p.quads;
        @if(squash) {
            log_probability -= log_slope(taken);
            draws[slot] = taken;
            actions[slot] = bitcast<vec4<u32>>(squashed(taken));
        }
        @if(!squash) {
            actions[slot] = bitcast<vec4<u32>>(taken);
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
