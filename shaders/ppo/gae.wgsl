// Generalised advantage estimation. One invocation processes one agent of one environment, from the last step to the first.

import package::constants::WG;
import package::scalars::{MEAN, DEVIATION, GROUP};

struct Gae {
    steps: u32,
    agents: u32,
    envs: u32,
    gamma: f32,
    lambda: f32,
    // Slots of truncated episodes.
    truncations: u32,
    reward_scale: f32,
    // Groups of agents that share networks: 1, or one per agent.
    groups: u32,
}

@group(0) @binding(0) var<uniform> p: Gae;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
@group(0) @binding(3) var<storage, read> dones_and_masks: array<u32>;
@group(0) @binding(4) var<storage, read> scalars: array<f32>;
@group(0) @binding(5) var<storage, read_write> targets: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.x;
    let lanes = p.agents * p.envs;
    if (lane >= lanes) {
        return;
    }
    let env = lane % p.envs;
    let size = p.steps * lanes;
    let own = lane / p.envs % p.groups * GROUP;
    let mean = scalars[own + MEAN];
    let deviation = scalars[own + DEVIATION];
    var next = values[size + lane] * deviation + mean;
    var advantage = 0.0;
    for (var back = 0u; back < p.steps; back++) {
        let t = p.steps - 1u - back;
        let at = t * lanes + lane;
        let done = dones_and_masks[t * p.envs + env];
        if (done == 1u) {
            next = 0.0;
            advantage = 0.0;
        } else if (done >= 2u) {
            // Truncated: bootstraps from the value of the episode's last observation, in a slot after those of the rollout. The slot is
            // clamped, so that no number an environment reports reads outside the values.
            let kept = p.steps + 1u + min(done - 2u, max(p.truncations, 1u) - 1u);
            let slot = select(p.steps, kept, p.truncations > 0u);
            next = values[slot * lanes + lane] * deviation + mean;
            advantage = 0.0;
        }
        let value = values[at] * deviation + mean;
        advantage = p.reward_scale * rewards[at] + p.gamma * next - value + p.gamma * p.lambda * advantage;
        targets[size + at] = advantage;
        targets[2u * size + at] = advantage + value;
        next = value;
    }
}
