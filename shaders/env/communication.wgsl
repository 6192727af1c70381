// MPE's simple_speaker_listener and simple_reference: two agents communicate which of three landmarks is the goal.
// One invocation owns one environment.

import package::constants::WG;
import package::lib::episode::{Moment, permit, settle};
import package::lib::observe::show;
import package::lib::random::{threefry, unit};

struct Communication {
    step: u32,
    steps: u32,
    envs: u32,
    // 1: start a new episode in every environment, write slot 0, and do nothing else.
    reset: u32,
    // Steps per episode.
    length: u32,
    // 1: simple_reference, both agents speak and move; 0: simple_speaker_listener, agent 0 speaks and agent 1 moves.
    reference: u32,
    // Size of the vocabulary.
    words: u32,
    // Size of one agent's observation.
    features: u32,
    seed_low: u32,
    seed_high: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> p: Communication;
@group(0) @binding(1) var<storage, read> actions: array<u32>;
@group(0) @binding(2) var<storage, read_write> rewards: array<f32>;
// u32, with floats stored as bits: a small counter stored in an f32 would be a denormal, which drivers may flush to 0.
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
// Binding 4: lib/observe; 5 and 6: lib/episode.

const AGENTS: u32 = 2u;
const LANDMARKS: u32 = 3u;
// Stay, -x, +x, -y, +y.
const MOVES: u32 = 5u;
const TIME_STEP: f32 = 0.1;
const DAMPING: f32 = 0.25;
const GAIN: f32 = 5.0;
// Weight of an agent's local reward in simple_reference.
const LOCAL_RATIO: f32 = 0.5;

// Fields of the state, `[field][env]`. Pairs: position and velocity of every agent, position of every landmark.
const POSITION: u32 = 0u;
const VELOCITY: u32 = 4u;
const LANDMARK: u32 = 8u;
// The landmark that an agent observes as the other agent's goal.
const GOAL: u32 = 14u;
// An agent's last message, counted from 1; 0: none yet.
const MESSAGE: u32 = 16u;
const TAKEN: u32 = 18u;
const EPISODE: u32 = 19u;
// Episodes truncated in this rollout, for lib/episode.
const CUT: u32 = 20u;
const RETURN: u32 = 21u;

// Random draws per episode.
const DRAWS: u32 = 6u;

fn moment(env: u32) -> Moment {
    return Moment(env, p.envs, p.step, p.steps);
}

fn word(index: u32, env: u32) -> u32 {
    return state[index * p.envs + env];
}

fn set_word(index: u32, env: u32, value: u32) {
    state[index * p.envs + env] = value;
}

fn pair(index: u32, env: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word(index, env)), bitcast<f32>(word(index + 1u, env)));
}

fn set_pair(index: u32, env: u32, value: vec2<f32>) {
    set_word(index, env, bitcast<u32>(value.x));
    set_word(index + 1u, env, bitcast<u32>(value.y));
}

fn position(agent: u32, env: u32) -> vec2<f32> {
    return pair(POSITION + 2u * agent, env);
}

fn landmark(number: u32, env: u32) -> vec2<f32> {
    return pair(LANDMARK + 2u * number, env);
}

// Clamped, because it is an index and may come from a file.
fn goal(agent: u32, env: u32) -> u32 {
    return min(word(GOAL + agent, env), LANDMARKS - 1u);
}

// The `number`-th random draw of a new episode.
fn draw(number: u32, env: u32) -> vec2<f32> {
    let counter = vec2<u32>(word(EPISODE, env) * DRAWS + number, env);
    let bits = threefry(vec2<u32>(p.seed_low, p.seed_high), counter);
    return vec2<f32>(unit(bits.x), unit(bits.y));
}

fn begin(env: u32) {
    for (var a = 0u; a < AGENTS; a++) {
        set_pair(POSITION + 2u * a, env, 2.0 * draw(a, env) - 1.0);
        set_pair(VELOCITY + 2u * a, env, vec2<f32>(0.0));
        set_word(MESSAGE + a, env, 0u);
    }
    for (var l = 0u; l < LANDMARKS; l++) {
        set_pair(LANDMARK + 2u * l, env, 2.0 * draw(AGENTS + l, env) - 1.0);
    }
    let goals = vec2<u32>(draw(AGENTS + LANDMARKS, env) * f32(LANDMARKS));
    set_word(GOAL, env, goals.x);
    set_word(GOAL + 1u, env, goals.y);
    set_word(EPISODE, env, word(EPISODE, env) + 1u);
    set_word(TAKEN, env, 0u);
    // The bits of 0.0.
    set_word(RETURN, env, 0u);
}

// Whether the agent is the speaker of simple_speaker_listener, who does not move.
fn speaks_only(agent: u32) -> bool {
    return p.reference == 0u && agent == 0u;
}

// Writes a pair of features at index `at` and returns the next index.
fn show_pair(at: u32, value: vec2<f32>) -> u32 {
    show(at, value.x);
    show(at + p.envs, value.y);
    return at + 2u * p.envs;
}

// Writes `size` features: `on` at index `number`, `off` elsewhere. Returns the next index.
fn one_hot(at: u32, number: u32, size: u32, off: f32, on: f32) -> u32 {
    for (var i = 0u; i < size; i++) {
        show(at + i * p.envs, select(off, on, i == number));
    }
    return at + size * p.envs;
}

// Writes the colour of the landmark that is the other agent's goal.
fn colour(at: u32, agent: u32, env: u32) -> u32 {
    let dark = select(0.15, 0.25, p.reference == 1u);
    return one_hot(at, goal(agent, env), LANDMARKS, dark, dark + 0.5);
}

fn observe(env: u32, slot: u32) {
    for (var a = 0u; a < AGENTS; a++) {
        var at = (slot * AGENTS + a) * p.features * p.envs + env;
        if (speaks_only(a)) {
            at = colour(at, a, env);
            // Padding: observations of all agents have the same size.
            for (var f = LANDMARKS; f < p.features; f++) {
                show(at, 0.0);
                at += p.envs;
            }
            continue;
        }
        at = show_pair(at, pair(VELOCITY + 2u * a, env));
        for (var l = 0u; l < LANDMARKS; l++) {
            at = show_pair(at, landmark(l, env) - position(a, env));
        }
        if (p.reference == 1u) {
            at = colour(at, a, env);
        }
        // Without a message 0 - 1 wraps around to a number that is no index: all zeros.
        one_hot(at, word(MESSAGE + 1u - a, env) - 1u, p.words, 0.0, 1.0);
    }
}

// simple_reference allows all moves and messages; the speaker only has messages, the listener only moves.
fn allow(env: u32, slot: u32) {
    for (var a = 0u; a < AGENTS; a++) {
        var choices = select(MOVES, p.words, speaks_only(a));
        if (p.reference == 1u) {
            choices = MOVES + p.words;
        }
        permit(moment(env), slot * AGENTS + a, (1u << choices) - 1u);
    }
}

// Force of a move in one of the four directions, or none.
fn push(direction: u32) -> vec2<f32> {
    let x = select(0.0, -1.0, direction == 1u) + select(0.0, 1.0, direction == 2u);
    let y = select(0.0, -1.0, direction == 3u) + select(0.0, 1.0, direction == 4u);
    return GAIN * vec2<f32>(x, y);
}

fn advance(env: u32) {
    for (var a = 0u; a < AGENTS; a++) {
        let action = actions[(p.step * AGENTS + a) * p.envs + env];
        // An action of simple_reference is direction + MOVES * message.
        var direction = action % MOVES;
        var message = action / MOVES + 1u;
        if (p.reference == 0u) {
            direction = select(action, 0u, speaks_only(a));
            message = select(0u, action + 1u, speaks_only(a));
        }
        let before = pair(VELOCITY + 2u * a, env);
        // The old velocity moves the position, as in mpe2.
        set_pair(POSITION + 2u * a, env, position(a, env) + before * TIME_STEP);
        set_pair(VELOCITY + 2u * a, env, before * (1.0 - DAMPING) + push(direction) * TIME_STEP);
        set_word(MESSAGE + a, env, message);
    }
}

// Vector from the other agent to its goal.
fn to_goal(agent: u32, env: u32) -> vec2<f32> {
    return landmark(goal(agent, env), env) - position(1u - agent, env);
}

// Writes the rewards and returns their mean.
fn reward(env: u32) -> f32 {
    let offset = to_goal(0u, env);
    var local = vec2<f32>(-dot(offset, offset));
    if (p.reference == 1u) {
        local = -vec2<f32>(length(offset), length(to_goal(1u, env)));
    }
    let mean = 0.5 * (local.x + local.y);
    let mixed = (1.0 - LOCAL_RATIO) * mean + LOCAL_RATIO * local;
    rewards[p.step * AGENTS * p.envs + env] = mixed.x;
    rewards[(p.step * AGENTS + 1u) * p.envs + env] = mixed.y;
    return mean;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let env = id.x;
    if (env >= p.envs) {
        return;
    }
    if (p.reset == 1u) {
        set_word(EPISODE, env, 0u);
        begin(env);
        observe(env, 0u);
        allow(env, 0u);
        return;
    }
    advance(env);
    let total = bitcast<f32>(word(RETURN, env)) + reward(env);
    let taken = word(TAKEN, env) + 1u;
    set_word(RETURN, env, bitcast<u32>(total));
    set_word(TAKEN, env, taken);
    // Clamped to the number of slots for truncated episodes.
    let cut = min(word(CUT, env), (p.steps - 1u) / p.length);
    let end = settle(moment(env), taken, total, cut, false, taken >= p.length);
    set_word(CUT, env, end.cut);
    if (end.truncated) {
        observe(env, end.slot);
    }
    if (end.over) {
        begin(env);
    }
    observe(env, p.step + 1u);
    allow(env, p.step + 1u);
}
