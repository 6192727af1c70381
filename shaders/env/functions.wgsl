// An environment of WGSL functions (env::DeviceEnv), owned by one invocation: the functions that it may call, and a step of it. This text
// follows the environment's own functions and the declarations that env::device_env generates for them: sizes, `state`, the
// accessors of AgentState, actions and data, and every `phalanx_` name that this file uses and does not declare. An entry point
// follows: env/step or env/rollout.

@if(in_rollout) import package::lib::draw::drawn;
import package::lib::episode::{Moment, permit, settle};
import package::lib::observe::show;
import package::lib::random::{threefry, unit};

struct PhalanxStep {
    // The first step to play, and the one after the last.
    step: u32,
    end: u32,
    // Steps of the rollout.
    steps: u32,
    envs: u32,
    // 1: start a new episode in every environment, write slot 0, and do nothing else.
    reset: u32,
    seed_low: u32,
    seed_high: u32,
    // Size of the global state; 0: it is not stored.
    state_dim: u32,
    // Index of the first global state in the observations.
    first_state: u32,
    agents: u32,
    // Steps after which an episode is truncated; 0: none is, by the number of its steps.
    limit: u32,
    // Number of the last slot for final observations of truncated episodes.
    last_cut: u32,
}

@group(0) @binding(0) var<uniform> phalanx_p: PhalanxStep;
@if(!in_rollout) @group(0) @binding(1) var<storage, read> phalanx_actions: array<u32>;
@group(0) @binding(2) var<storage, read_write> phalanx_rewards: array<f32>;
// u32, with floats stored as bits: a small counter stored in an f32 would be a denormal, which drivers may flush to 0.
@group(0) @binding(3) var<storage, read_write> phalanx_words: array<u32>;
// Binding 4: lib/observe; 5 and 6: lib/episode; from 7 on: the environment's parameters and data.

var<private> phalanx_env: u32;
// The step of the rollout.
var<private> phalanx_now: u32;
// Steps of this episode, and episodes begun.
var<private> phalanx_taken: u32;
var<private> phalanx_begun: u32;
// Episodes truncated in this rollout, and the return of this one.
var<private> phalanx_cut: u32;
var<private> phalanx_return: f32;
// Mean of this step's rewards over the agents.
var<private> phalanx_mean: f32;
var<private> phalanx_slot: u32;
// Index of the first feature of the agent that observes.
var<private> phalanx_first: u32;

// Words of the state, `[row][env]`.
fn phalanx_load(row: u32) -> u32 {
    return phalanx_words[row * phalanx_p.envs + phalanx_env];
}

fn phalanx_store(row: u32, word: u32) {
    phalanx_words[row * phalanx_p.envs + phalanx_env] = word;
}

fn phalanx_action(agent: u32, number: u32) -> u32 {
    let row = (phalanx_now * AGENTS + agent) * phalanx_NUMBERS + number;
    let at = row * phalanx_p.envs + phalanx_env;
    @if(in_rollout) return drawn(at);
    @else return phalanx_actions[at];
}

// The functions below are the environment's: docs/environments.md lists them.

// AGENTS, unknown to the compiler: it unrolls loops with constant bounds, which for dozens of agents takes it minutes.
fn agents() -> u32 {
    return phalanx_p.agents;
}

fn reward(agent: u32, value: f32) {
    phalanx_rewards[(phalanx_now * AGENTS + agent) * phalanx_p.envs + phalanx_env] = value;
    phalanx_mean += value / f32(AGENTS);
}

// The reward that an agent was given in this step.
fn reward_of(agent: u32) -> f32 {
    return phalanx_rewards[(phalanx_now * AGENTS + agent) * phalanx_p.envs + phalanx_env];
}

fn mean_reward(value: f32) {
    phalanx_mean = value;
}

fn feature(index: u32, value: f32) {
    show(phalanx_first + index * phalanx_p.envs, value);
}

fn global_feature(index: u32, value: f32) {
    let row = phalanx_slot * phalanx_p.state_dim + index;
    show(phalanx_p.first_state + row * phalanx_p.envs + phalanx_env, value);
}

fn steps_taken() -> u32 {
    return phalanx_taken;
}

fn episode() -> u32 {
    return phalanx_begun - 1u;
}

fn random(number: u32) -> vec2<f32> {
    let key = threefry(phalanx_seed(), vec2<u32>(episode(), phalanx_env));
    let bits = threefry(key, vec2<u32>(number, 0u));
    return vec2<f32>(unit(bits.x), unit(bits.y));
}

fn random_at(counter: u32) -> vec2<f32> {
    let bits = threefry(phalanx_seed(), vec2<u32>(counter, phalanx_env));
    return vec2<f32>(unit(bits.x), unit(bits.y));
}

fn phalanx_seed() -> vec2<u32> {
    return vec2<u32>(phalanx_p.seed_low, phalanx_p.seed_high);
}

fn phalanx_moment() -> Moment {
    return Moment(phalanx_env, phalanx_p.envs, phalanx_now, phalanx_p.steps);
}

fn phalanx_begin() {
    phalanx_begun += 1u;
    phalanx_taken = 0u;
    phalanx_clear();
    reset();
}

// Writes observations and the global state to a slot.
fn phalanx_observe(slot: u32) {
    phalanx_slot = slot;
    for (var a = 0u; a < agents(); a++) {
        phalanx_first = (slot * AGENTS + a) * FEATURES * phalanx_p.envs + phalanx_env;
        observe(a);
    }
    if (phalanx_p.state_dim > 0u) {
        phalanx_global();
    }
}

fn phalanx_allow(slot: u32) {
    for (var a = 0u; a < agents(); a++) {
        permit(phalanx_moment(), slot * AGENTS + a, phalanx_mask(a));
    }
}

fn phalanx_load_all() {
    phalanx_load_state();
    phalanx_taken = phalanx_load(phalanx_TAKEN_ROW);
    phalanx_begun = phalanx_load(phalanx_BEGUN_ROW);
    phalanx_cut = phalanx_load(phalanx_CUT_ROW);
    phalanx_return = bitcast<f32>(phalanx_load(phalanx_RETURN_ROW));
}

fn phalanx_store_all() {
    phalanx_store_state();
    phalanx_store(phalanx_TAKEN_ROW, phalanx_taken);
    phalanx_store(phalanx_BEGUN_ROW, phalanx_begun);
    phalanx_store(phalanx_CUT_ROW, phalanx_cut);
    phalanx_store(phalanx_RETURN_ROW, bitcast<u32>(phalanx_return));
}

// Begins the first episode. The number of truncated episodes is left as it is: every rollout begins with 0.
fn phalanx_start() {
    phalanx_cut = phalanx_load(phalanx_CUT_ROW);
    phalanx_begun = 0u;
    phalanx_return = 0.0;
    phalanx_begin();
    phalanx_store_all();
    phalanx_observe(0u);
    phalanx_allow(0u);
}

// Plays step `phalanx_now`, between `phalanx_load_all` and `phalanx_store_all`.
fn phalanx_play() {
    phalanx_taken += 1u;
    phalanx_mean = 0.0;
    let outcome = step();
    phalanx_return += phalanx_mean;
    let terminated = outcome == TERMINATED;
    let late = phalanx_p.limit > 0u && phalanx_taken >= phalanx_p.limit;
    // An earlier one is no end: its final observation would have no slot.
    let cut_off = phalanx_SHORTEST > 0u && outcome == 2u && phalanx_taken >= phalanx_SHORTEST;
    let truncated = late || cut_off;
    // Clamped, because it is an index.
    let cut = min(phalanx_cut, phalanx_p.last_cut);
    let end = settle(phalanx_moment(), phalanx_taken, phalanx_return, cut, terminated, truncated);
    if (end.truncated) {
        phalanx_observe(end.slot);
    }
    if (end.over) {
        phalanx_begin();
        phalanx_return = 0.0;
    }
    phalanx_cut = end.cut;
    phalanx_observe(phalanx_now + 1u);
    phalanx_allow(phalanx_now + 1u);
}
