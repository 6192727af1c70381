// MPE's simple_spread: N agents cover N landmarks and avoid collisions. One invocation owns one environment.

import package::constants::WG;
import package::lib::episode::{Moment, permit, settle};
import package::lib::observe::show;
import package::lib::random::{threefry, unit};

struct Spread {
    step: u32,
    steps: u32,
    envs: u32,
    agents: u32,
    // 1: start a new episode in every environment, write slot 0, and do nothing else.
    reset: u32,
    // Steps per episode.
    length: u32,
    // 1: rules of the MAPPO paper's code, 0: rules of MPE2.
    paper: u32,
    seed_low: u32,
    seed_high: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Spread;
@group(0) @binding(1) var<storage, read> actions: array<u32>;
@group(0) @binding(2) var<storage, read_write> rewards: array<f32>;
// u32, with floats stored as bits: a small counter stored in an f32 would be a denormal, which drivers may flush to 0.
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
// Binding 4: lib/observe; 5 and 6: lib/episode.

const TIME_STEP: f32 = 0.1;
const DAMPING: f32 = 0.25;
const GAIN: f32 = 5.0;
const STIFFNESS: f32 = 100.0;
const MARGIN: f32 = 1e-3;
// Distance of two touching agents: two radii.
const CONTACT: f32 = 0.3;
const ACTIONS: u32 = 5u;

fn moment(env: u32) -> Moment {
    return Moment(env, p.envs, p.step, p.steps);
}

// Fields of the state, `[field][env]`: position and velocity of every agent, position of every landmark, counters, displacements.
fn field(index: u32, env: u32) -> f32 {
    return bitcast<f32>(state[index * p.envs + env]);
}

fn set_field(index: u32, env: u32, value: f32) {
    state[index * p.envs + env] = bitcast<u32>(value);
}

fn pair(index: u32, env: u32) -> vec2<f32> {
    return vec2<f32>(field(index, env), field(index + 1u, env));
}

fn set_pair(index: u32, env: u32, value: vec2<f32>) {
    set_field(index, env, value.x);
    set_field(index + 1u, env, value.y);
}

fn position(agent: u32, env: u32) -> vec2<f32> {
    return pair(4u * agent, env);
}

fn landmark(number: u32, env: u32) -> vec2<f32> {
    return pair(4u * p.agents + 2u * number, env);
}

const TAKEN: u32 = 0u;
const EPISODE: u32 = 1u;
// Episodes truncated in this rollout, for lib/episode.
const CUT: u32 = 2u;
const RETURN: u32 = 3u;
// Displacement of every agent in this step.
const MOVED: u32 = 4u;

fn counter(which: u32) -> u32 {
    return 6u * p.agents + which;
}

fn count(which: u32, env: u32) -> u32 {
    return state[counter(which) * p.envs + env];
}

fn set_count(which: u32, env: u32, value: u32) {
    state[counter(which) * p.envs + env] = value;
}

// The `number`-th random position of an episode, uniform in [-1, 1) x [-1, 1).
fn random_position(number: u32, env: u32) -> vec2<f32> {
    let draw = vec2<u32>(count(EPISODE, env) * 2u * p.agents + number, env);
    let bits = threefry(vec2<u32>(p.seed_low, p.seed_high), draw);
    return 2.0 * vec2<f32>(unit(bits.x), unit(bits.y)) - 1.0;
}

fn begin(env: u32) {
    for (var a = 0u; a < p.agents; a++) {
        set_pair(4u * a, env, random_position(a, env));
        set_pair(4u * a + 2u, env, vec2<f32>(0.0));
        let extent = select(1.0, 0.8, p.paper == 1u);
        set_pair(4u * p.agents + 2u * a, env, extent * random_position(p.agents + a, env));
    }
    set_count(EPISODE, env, count(EPISODE, env) + 1u);
    set_count(TAKEN, env, 0u);
    set_field(counter(RETURN), env, 0.0);
}

// Writes the observation of every agent; positions of landmarks and other agents are relative to it.
fn observe(env: u32, slot: u32) {
    // Velocity, position, landmarks, other agents, and the others' messages, which are always zeros.
    let width = 4u + 2u * p.agents + 4u * (p.agents - 1u);
    for (var a = 0u; a < p.agents; a++) {
        let here = position(a, env);
        let speed = pair(4u * a + 2u, env);
        var at = (slot * p.agents + a) * width * p.envs + env;
        at = show_pair(at, speed);
        at = show_pair(at, here);
        for (var l = 0u; l < p.agents; l++) {
            at = show_pair(at, landmark(l, env) - here);
        }
        for (var other = 0u; other < p.agents; other++) {
            if (other != a) {
                at = show_pair(at, position(other, env) - here);
            }
        }
        for (var other = 1u; other < p.agents; other++) {
            at = show_pair(at, vec2<f32>(0.0));
        }
    }
}

fn allow(env: u32, slot: u32) {
    for (var a = 0u; a < p.agents; a++) {
        permit(moment(env), slot * p.agents + a, (1u << ACTIONS) - 1u);
    }
}

// Writes a pair of features at index `at` and returns the next index.
fn show_pair(at: u32, value: vec2<f32>) -> u32 {
    show(at, value.x);
    show(at + p.envs, value.y);
    return at + 2u * p.envs;
}

// Force of an action.
fn push(action: u32) -> vec2<f32> {
    let direction = select(1.0, -1.0, (action % 2u == 1u) != (p.paper == 1u));
    let along_x = action == 1u || action == 2u;
    let along_y = action == 3u || action == 4u;
    return GAIN * direction * vec2<f32>(select(0.0, 1.0, along_x), select(0.0, 1.0, along_y));
}

// Force of b on a: soft repulsion within two radii.
fn contact(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let apart = a - b;
    let distance = length(apart);
    if (distance == 0.0) {
        return vec2<f32>(0.0);
    }
    let inside = (CONTACT - distance) / MARGIN;
    // ln(1 + exp(x)) without overflow.
    let depth = max(inside, 0.0) + log(1.0 + exp(-abs(inside)));
    return STIFFNESS * MARGIN * depth / distance * apart;
}

fn advance(env: u32) {
    // All forces depend on the positions before the step.
    for (var a = 0u; a < p.agents; a++) {
        var force = push(actions[(p.step * p.agents + a) * p.envs + env]);
        for (var other = 0u; other < p.agents; other++) {
            if (other != a) {
                force += contact(position(a, env), position(other, env));
            }
        }
        let before = pair(4u * a + 2u, env);
        let after = before * (1.0 - DAMPING) + force * TIME_STEP;
        // The paper's code moves by the new velocity, MPE2 by the old one. Applied once all forces are known.
        set_pair(4u * a + 2u, env, after);
        let moved = select(before, after, p.paper == 1u) * TIME_STEP;
        set_pair(counter(MOVED) + 2u * a, env, moved);
    }
    for (var a = 0u; a < p.agents; a++) {
        set_pair(4u * a, env, position(a, env) + pair(counter(MOVED) + 2u * a, env));
    }
}

// Writes the rewards and returns their mean.
fn reward(env: u32) -> f32 {
    var covered = 0.0;
    for (var l = 0u; l < p.agents; l++) {
        var nearest = 1e9;
        for (var a = 0u; a < p.agents; a++) {
            nearest = min(nearest, distance(position(a, env), landmark(l, env)));
        }
        covered -= nearest;
    }
    let number = f32(p.agents);
    var bumps = 0.0;
    for (var a = 0u; a < p.agents; a++) {
        var own = 0.0;
        for (var other = 0u; other < p.agents; other++) {
            if (other != a && distance(position(a, env), position(other, env)) < CONTACT) {
                own += 1.0;
            }
        }
        bumps += own;
        rewards[(p.step * p.agents + a) * p.envs + env] = 0.5 * covered - 0.5 * own;
    }
    if (p.paper == 0u) {
        return 0.5 * covered - 0.5 * bumps / number;
    }
    // Every agent receives the sum of all rewards, and also counts a collision with itself.
    let joint = number * (covered - 1.0) - bumps;
    for (var a = 0u; a < p.agents; a++) {
        rewards[(p.step * p.agents + a) * p.envs + env] = joint;
    }
    return joint;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let env = id.x;
    if (env >= p.envs) {
        return;
    }
    if (p.reset == 1u) {
        set_count(EPISODE, env, 0u);
        begin(env);
        observe(env, 0u);
        allow(env, 0u);
        return;
    }
    advance(env);
    let total = field(counter(RETURN), env) + reward(env);
    let taken = count(TAKEN, env) + 1u;
    set_field(counter(RETURN), env, total);
    set_count(TAKEN, env, taken);
    let late = taken >= p.length;
    // Clamped to the number of slots for truncated episodes.
    let cut = min(count(CUT, env), (p.steps - 1u) / p.length);
    let end = settle(moment(env), taken, total, cut, late && p.paper == 1u, late && p.paper == 0u);
    set_count(CUT, env, end.cut);
    if (end.truncated) {
        observe(env, end.slot);
    }
    if (end.over) {
        begin(env);
    }
    observe(env, p.step + 1u);
    allow(env, p.step + 1u);
}
