// Ends an iteration: reduces its statistics to one record for the CPU, clears the episode counters and increments the iteration. One
// workgroup, fixed order.

import package::constants::WG;
import package::lib::numeric::nan;
import package::lib::optimizer_step::skipped_in_a_row;
import package::scalars::{MEAN, DEVIATION, LOSS_SCALE, EPOCHS, ROW_SHARE, GROUP};

struct WriteMetrics {
    // vec4 pairs that ppo/loss wrote in all epochs.
    statistics: u32,
    // f32s of the rewards.
    rewards: u32,
    envs: u32,
    nets: u32,
    actors: u32,
    // Agent steps of HAPPO; else 1.
    agent_steps: u32,
    // Groups of agents that share networks: 1, or one per agent.
    groups: u32,
    pad0: u32,
}

// Counterpart of ppo::write_metrics::Record.
struct Record {
    policy_loss: f32,
    value_loss: f32,
    entropy: f32,
    approx_kl: f32,
    clip_fraction: f32,
    actor_norm: f32,
    critic_norm: f32,
    learning_rate: f32,
    reward: f32,
    return_sum: f32,
    episodes: f32,
    episode_steps: f32,
    terminated: f32,
    skipped: f32,
    value_mean: f32,
    value_deviation: f32,
    loss_scale: f32,
    epochs: f32,
    explained_variance: f32,
    active_fraction: f32,
    skipped_in_a_row: f32,
}

@group(0) @binding(0) var<uniform> p: WriteMetrics;
@group(0) @binding(1) var<storage, read> statistics: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
@group(0) @binding(3) var<storage, read> optimizer: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scalars: array<f32>;
// Four sections of one f32 an environment: sum of episode returns, episodes, steps in them, terminated episodes.
@group(0) @binding(5) var<storage, read_write> episodes: array<f32>;
@group(0) @binding(6) var<storage, read_write> iteration: array<u32>;
@group(0) @binding(7) var<storage, read_write> record: Record;
// Log-probabilities, advantages, returns: a section of p.rewards f32s each.
@group(0) @binding(8) var<storage, read> targets: array<f32>;

var<workgroup> lanes: array<vec4<f32>, WG>;

fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var other = 0u; other < WG; other++) {
        sum += lanes[other];
    }
    workgroupBarrier();
    return sum;
}

// Past the end the last ones are read again: without branches between them, the loads of an iteration wait for memory together.
fn loss(i: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), statistics[2u * min(i, p.statistics - 1u)], i < p.statistics);
}

fn clipped(i: u32) -> f32 {
    return select(0.0, statistics[2u * min(i, p.statistics - 1u) + 1u].x, i < p.statistics);
}

// Reward, advantage and return of a row. A return minus its advantage is the critic's value.
fn row(i: u32) -> vec3<f32> {
    let at = min(i, p.rewards - 1u);
    let found = vec3<f32>(rewards[at], targets[p.rewards + at], targets[2u * p.rewards + at]);
    return select(vec3<f32>(0.0), found, i < p.rewards);
}

// Squared deviations of the advantage and of the return of a row.
fn squares(i: u32, mean: vec2<f32>) -> vec2<f32> {
    let apart = row(i).yz - mean;
    return select(vec2<f32>(0.0), apart * apart, i < p.rewards);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var losses = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    // Unrolled by eight: llvmpipe stops loops after 65,535 iterations.
    for (var i = lane; i < p.statistics; i += 8u * WG) {
        losses += loss(i);
        losses += loss(i + 1u * WG);
        losses += loss(i + 2u * WG);
        losses += loss(i + 3u * WG);
        losses += loss(i + 4u * WG);
        losses += loss(i + 5u * WG);
        losses += loss(i + 6u * WG);
        losses += loss(i + 7u * WG);
        others.x += clipped(i);
        others.x += clipped(i + 1u * WG);
        others.x += clipped(i + 2u * WG);
        others.x += clipped(i + 3u * WG);
        others.x += clipped(i + 4u * WG);
        others.x += clipped(i + 5u * WG);
        others.x += clipped(i + 6u * WG);
        others.x += clipped(i + 7u * WG);
    }
    var rows = vec3<f32>(0.0);
    for (var i = lane; i < p.rewards; i += 8u * WG) {
        rows += row(i);
        rows += row(i + 1u * WG);
        rows += row(i + 2u * WG);
        rows += row(i + 3u * WG);
        rows += row(i + 4u * WG);
        rows += row(i + 5u * WG);
        rows += row(i + 6u * WG);
        rows += row(i + 7u * WG);
    }
    var ended = vec4<f32>(0.0);
    for (var e = lane; e < p.envs; e += WG) {
        ended += vec4<f32>(episodes[e], episodes[p.envs + e], episodes[2u * p.envs + e], episodes[3u * p.envs + e]);
        episodes[e] = 0.0;
        episodes[p.envs + e] = 0.0;
        episodes[2u * p.envs + e] = 0.0;
        episodes[3u * p.envs + e] = 0.0;
    }
    // Epochs that updated the weights; the others left zeros.
    let epochs = scalars[EPOCHS] / f32(p.agent_steps);
    let share = scalars[ROW_SHARE] / epochs;
    losses = total(lane, losses) * share;
    others = total(lane, vec4<f32>(others.x, rows));
    let means = others.zw / f32(p.rewards);
    var deviations = vec2<f32>(0.0);
    for (var i = lane; i < p.rewards; i += 8u * WG) {
        deviations += squares(i, means);
        deviations += squares(i + 1u * WG, means);
        deviations += squares(i + 2u * WG, means);
        deviations += squares(i + 3u * WG, means);
        deviations += squares(i + 4u * WG, means);
        deviations += squares(i + 5u * WG, means);
        deviations += squares(i + 6u * WG, means);
        deviations += squares(i + 7u * WG, means);
    }
    let spread = total(lane, vec4<f32>(deviations, 0.0, 0.0)).xy;
    ended = total(lane, ended);
    if (lane != 0u) {
        return;
    }
    var actor_norm = 0.0;
    var critic_norm = 0.0;
    var skipped = 0.0;
    var in_a_row = 0.0;
    for (var net = 0u; net < p.nets; net++) {
        let norm = optimizer[net * 2u].y;
        if (net < p.actors) {
            actor_norm = max(actor_norm, norm);
        } else {
            critic_norm = max(critic_norm, norm);
        }
        skipped += optimizer[net * 2u + 1u].w;
        in_a_row = max(in_a_row, skipped_in_a_row(optimizer[net * 2u + 1u].z));
    }
    var value_norm = vec2<f32>(0.0);
    for (var group = 0u; group < p.groups; group++) {
        value_norm += vec2<f32>(scalars[group * GROUP + MEAN], scalars[group * GROUP + DEVIATION]);
    }
    record.policy_loss = losses.x;
    record.value_loss = losses.y;
    record.entropy = losses.z;
    record.approx_kl = losses.w;
    record.clip_fraction = others.x * share;
    record.actor_norm = actor_norm;
    record.critic_norm = critic_norm;
    record.learning_rate = optimizer[0].w;
    record.reward = others.y / f32(p.rewards);
    record.return_sum = ended.x;
    record.episodes = ended.y;
    record.episode_steps = ended.z;
    record.terminated = ended.w;
    record.skipped = skipped;
    record.value_mean = value_norm.x / f32(p.groups);
    record.value_deviation = value_norm.y / f32(p.groups);
    record.loss_scale = scalars[LOSS_SCALE];
    record.epochs = epochs;
    // Of constant returns it is not defined.
    record.explained_variance = select(1.0 - spread.x / spread.y, nan(), spread.y == 0.0);
    // ppo/advantage_stats writes 2 if no row is active.
    record.active_fraction = select(1.0 / (scalars[ROW_SHARE] * f32(p.rewards)), 0.0, scalars[ROW_SHARE] > 1.5);
    record.skipped_in_a_row = in_a_row;
    iteration[0] += 1u;
}
