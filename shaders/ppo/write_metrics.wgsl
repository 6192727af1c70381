// Ends an iteration: joins the sums of ppo/metrics_sums to one record for the CPU and increments the iteration. One workgroup, fixed
// order.

import package::constants::WG;
import package::lib::metrics::{Spread, Sums, WriteMetrics};
import package::lib::numeric::nan;
import package::lib::optimizer_step::skipped_in_a_row;
import package::lib::total::total;
import package::scalars::{MEAN, DEVIATION, LOSS_SCALE, EPOCHS, ROW_SHARE, GROUP};

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
@group(0) @binding(1) var<storage, read> sums: array<Sums>;
@group(0) @binding(2) var<storage, read> optimizer: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scalars: array<f32>;
@group(0) @binding(4) var<storage, read_write> iteration: array<u32>;
@group(0) @binding(5) var<storage, read_write> record: Record;

// Sum of the values.
fn sum_of(one: Spread) -> f32 {
    return one.near * one.count + one.distances;
}

// Sums of the distances from `mean` and of their squares.
fn about(one: Spread, mean: f32) -> vec2<f32> {
    let off = one.near - mean;
    let moved = one.count * off;
    return vec2<f32>(one.distances + moved, one.squares + off * (2.0 * one.distances + moved));
}

// Sum of the squared distances from the exact mean: that of the distances is not 0, because the mean is rounded.
fn exact(found: vec2<f32>, count: f32) -> f32 {
    let exact = found.y - found.x * (found.x / count);
    return select(exact, 0.0, exact <= 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var losses = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    var ended = vec4<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        let one = sums[part];
        losses += one.losses;
        ended += one.ended;
        others += vec4<f32>(one.others.xy, sum_of(one.advantages), sum_of(one.returns));
    }
    losses = total(lane, losses);
    others = total(lane, others);
    ended = total(lane, ended);
    let rows = f32(p.rewards);
    let means = others.zw / rows;
    var spread = vec4<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        spread += vec4<f32>(about(sums[part].advantages, means.x), about(sums[part].returns, means.y));
    }
    spread = total(lane, spread);
    if (lane != 0u) {
        return;
    }
    // Epochs that updated the weights; the others left zeros.
    let epochs = scalars[EPOCHS] / f32(p.agent_steps);
    let share = scalars[ROW_SHARE] / epochs;
    losses *= share;
    let of_advantages = exact(spread.xy, rows);
    let of_returns = exact(spread.zw, rows);
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
    record.explained_variance = select(1.0 - of_advantages / of_returns, nan(), of_returns == 0.0);
    // ppo/advantage_stats writes 2 if no row is active.
    record.active_fraction = select(1.0 / (scalars[ROW_SHARE] * f32(p.rewards)), 0.0, scalars[ROW_SHARE] > 1.5);
    record.skipped_in_a_row = in_a_row;
    iteration[0] += 1u;
}
