//! A custom environment on the device, including its kernel: two agents in a corridor of 16 cells must stand on their goals at the
//! same time. `docs/environments.md` explains it step by step.
//!
//! `cargo run --release --example corridor`; add `-- --half` for f16.

use phalanx::Result;
use phalanx::env::{DeviceState, EnvRecording, Environment, MAX_EPISODES, RolloutBuffers, Spec, StateFields};
use phalanx::gpu::{Gpu, GpuOptions, Kernel, Plan, STATE, Shader, TABLE_ENTRY, Variant};
use phalanx::mappo::{Config, Precision, Trainer};
use phalanx::shader_with_library;

/// Steps after which an episode is truncated.
const LENGTH: u32 = 32;
const AGENTS: u32 = 2;
/// Own position, offset to the other agent, offset to the own goal.
const FEATURES: u32 = 3;
/// State words per environment.
const FIELDS: u64 = 8;

const SOURCE: &str = r"
// One invocation owns one environment; env is the fastest index of every buffer.

import package::constants::{WG, LENGTH, AGENTS, FEATURES};
import package::lib::episode::{Moment, permit, settle};
import package::lib::observe::show;
import package::lib::random::{threefry, unit};

struct Corridor {
    // The vec2 comes first, because it is aligned to 8 bytes.
    seed: vec2<u32>,
    step: u32,
    steps: u32,
    envs: u32,
    // 1: start a new episode in every environment, write slot 0, and do nothing else.
    reset: u32,
}

@group(0) @binding(0) var<uniform> p: Corridor;
@group(0) @binding(1) var<storage, read> actions: array<u32>;
@group(0) @binding(2) var<storage, read_write> rewards: array<f32>;
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
// Binding 4: the observations, declared in lib/observe. 5 and 6: ends, masks and episodes, declared in lib/episode.

const CELLS: u32 = 16u;
const BONUS: f32 = 1.0;

// Fields of the state, `[field][env]`; positions and goals have one field per agent.
const POSITION: u32 = 0u;
const GOAL: u32 = 2u;
const TAKEN: u32 = 4u;
const EPISODE: u32 = 5u;
// Number of episodes truncated in this rollout, for lib/episode.
const CUT: u32 = 6u;
// Bits of an f32.
const RETURN: u32 = 7u;

fn moment(env: u32) -> Moment {
    return Moment(env, p.envs, p.step, p.steps);
}

fn field(index: u32, env: u32) -> u32 {
    return index * p.envs + env;
}

fn number(index: u32, env: u32) -> f32 {
    return f32(state[field(index, env)]);
}

fn begin(env: u32) {
    let draw = 2u * state[field(EPISODE, env)];
    let positions = threefry(p.seed, vec2<u32>(draw, env));
    let goals = threefry(p.seed, vec2<u32>(draw + 1u, env));
    state[field(POSITION, env)] = cell(positions.x);
    state[field(POSITION + 1u, env)] = cell(positions.y);
    state[field(GOAL, env)] = cell(goals.x);
    state[field(GOAL + 1u, env)] = cell(goals.y);
    state[field(EPISODE, env)] += 1u;
    state[field(TAKEN, env)] = 0u;
    // The bits of 0.0.
    state[field(RETURN, env)] = 0u;
}

fn cell(bits: u32) -> u32 {
    return u32(unit(bits) * f32(CELLS));
}

// Writes the observations of both agents, in about [-1, 1].
fn observe(env: u32, slot: u32) {
    let last = f32(CELLS - 1u);
    for (var a = 0u; a < AGENTS; a++) {
        let here = number(POSITION + a, env);
        let at = (slot * AGENTS + a) * FEATURES * p.envs + env;
        show(at, 2.0 * here / last - 1.0);
        show(at + p.envs, (number(POSITION + 1u - a, env) - here) / last);
        show(at + 2u * p.envs, (number(GOAL + a, env) - here) / last);
    }
}

// Left is bit 0, stay bit 1, right bit 2; the walls block left and right.
fn allow(env: u32, slot: u32) {
    for (var a = 0u; a < AGENTS; a++) {
        let here = state[field(POSITION + a, env)];
        let left = select(0u, 1u, here > 0u);
        let right = select(0u, 4u, here < CELLS - 1u);
        permit(moment(env), slot * AGENTS + a, left | 2u | right);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let env = id.x;
    if (env >= p.envs) {
        return;
    }
    if (p.reset == 1u) {
        state[field(EPISODE, env)] = 0u;
        begin(env);
        observe(env, 0u);
        allow(env, 0u);
        return;
    }
    var distance = 0.0;
    for (var a = 0u; a < AGENTS; a++) {
        // The masks forbid every action that would leave the corridor.
        let action = actions[(p.step * AGENTS + a) * p.envs + env];
        state[field(POSITION + a, env)] += action - 1u;
        distance += abs(number(POSITION + a, env) - number(GOAL + a, env));
    }
    let arrived = distance == 0.0;
    let reward = select(-distance / f32(CELLS), BONUS, arrived);
    for (var a = 0u; a < AGENTS; a++) {
        rewards[(p.step * AGENTS + a) * p.envs + env] = reward;
    }
    let total = bitcast<f32>(state[field(RETURN, env)]) + reward;
    let taken = state[field(TAKEN, env)] + 1u;
    state[field(RETURN, env)] = bitcast<u32>(total);
    state[field(TAKEN, env)] = taken;
    // Terminated when both have arrived, truncated at the time limit. `cut` is clamped to the number of slots.
    let cut = min(state[field(CUT, env)], (p.steps - 1u) / LENGTH);
    let end = settle(moment(env), taken, total, cut, arrived, taken >= LENGTH);
    state[field(CUT, env)] = end.cut;
    if (end.truncated) {
        // The final observation, whose value is bootstrapped.
        observe(env, end.slot);
    }
    if (end.over) {
        begin(env);
    }
    // After an end, these belong to the next episode.
    observe(env, p.step + 1u);
    allow(env, p.step + 1u);
}
";

const SHADER: Shader = shader_with_library("corridor", SOURCE);

/// Mirrors `Corridor` in the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Parameters {
    seed: [u32; 2],
    step: u32,
    steps: u32,
    envs: u32,
    reset: u32,
}

struct Corridor;

/// Rejects a saved state that the kernel could not have written; fields in the order of the shader.
fn validate(words: &[u32], envs: usize, truncations: u32) -> Result<(), String> {
    let fields = StateFields::new(words, FIELDS as usize, envs)?;
    for field in 0..4 {
        fields.counts(["position", "position", "goal", "goal"][field], field, 0..=15)?;
    }
    fields.counts("step of the episode", 4, 0..=LENGTH - 1)?;
    fields.counts("episode", 5, 1..=MAX_EPISODES)?;
    fields.counts("truncated episodes", 6, 0..=truncations)?;
    fields.finite("return", 7)
}

impl Environment for Corridor {
    fn spec(&self) -> Spec {
        Spec { agents: AGENTS, obs_dim: FEATURES, actions: 3 }
    }

    fn identity(&self) -> String {
        format!("corridor, truncated after {LENGTH}")
    }

    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(LENGTH)
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        let mut plan = Plan::new();
        plan.words("corridor state", FIELDS * u64::from(envs));
        plan.bytes_of("corridor parameters", (u64::from(steps) + 1) * TABLE_ENTRY);
        plan
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        let variant = Variant::independent(gpu.class()).with("AGENTS", AGENTS).with("FEATURES", FEATURES);
        let variant = rollout.storage.apply(variant.with("LENGTH", LENGTH));
        let kernel = Kernel::new(gpu, &SHADER, variant, &EnvRecording::ACCESS, size_of::<Parameters>())?;
        let buffer = gpu.buffer("corridor state", FIELDS * u64::from(rollout.envs) * 4, STATE)?;
        let (envs, truncations) = (rollout.envs as usize, self.truncations(rollout.steps));
        let state = DeviceState::new(buffer, move |words| validate(words, envs, truncations));
        // A separate random stream: initial weights and actions use the plain seed.
        let seed = [rollout.seed as u32, (rollout.seed >> 32) as u32 ^ 0x00C0_4419];
        let (steps, envs) = (rollout.steps, rollout.envs);
        EnvRecording::of_kernel(gpu, rollout, &kernel, state, &[], |step, reset| Parameters {
            seed,
            step,
            steps,
            envs,
            reset: u32::from(reset),
        })
    }
}

fn main() -> Result<()> {
    let half = std::env::args().any(|argument| argument == "--half");
    let mut config = Config::default();
    config.ppo.num_envs = 64;
    config.ppo.rollout_steps = 32;
    config.ppo.iterations = 60;
    config.ppo.epochs = 5;
    config.network.hidden = vec![32, 32];
    // LayerNorm over three features would hide the distances.
    config.network.input_norm = false;
    config.optimizer.actor_learning_rate = 2e-3;
    config.optimizer.critic_learning_rate = 2e-3;
    config.device.accumulation = 1;
    config.device.precision = if half { Precision::F16 } else { Precision::F32 };
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &Corridor, &config)?;
    println!("{}: {} environments", gpu.info().name, trainer.sizes().envs);
    // Sums over ten iterations: episodes, returns, steps, and episodes that ended on both goals.
    let mut sums = [0f32; 4];
    trainer.train(|progress| -> Result<()> {
        let record = progress.record;
        let values = [record.episodes, record.return_sum, record.episode_steps, record.terminated];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        if progress.iteration % 10 == 0 {
            let [_, total, length, arrived] = sums.map(|sum| sum / sums[0]);
            println!(
                "iteration {}: mean return {total:6.2}, mean length {length:4.1}, success {:3.0} %",
                progress.iteration,
                100.0 * arrived
            );
            sums = [0.0; 4];
        }
        Ok(())
    })
}
