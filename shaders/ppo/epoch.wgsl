// Begins an epoch, or a further minibatch of it: moves the running moments of the returns (ValueNorm) by the batch moments that ppo/advantage_stats left, sets the
// entropy coefficient, and stops the updates on this rollout once the policy has moved far enough. One workgroup, fixed order.

import package::constants::WG;

struct Epoch {
    // 1 - beta, exact in f32 where beta itself is not.
    weight: f32,
    floor: f32,
    // 0: values are left as they are.
    enabled: u32,
    // Epoch of this rollout, from 0.
    number: u32,
    // Places of the statistics of one epoch.
    places: u32,
    // KL divergence of the last epoch above which there are no more updates; 0: never.
    target_kl: f32,
    // Entropy coefficient of iteration 0, and what it gains every iteration, over so many.
    entropy: f32,
    entropy_step: f32,
    iterations: u32,
    // 1: a further minibatch of the epoch.
    further: u32,
    // Where the scalars have the minibatch's own moments; 0: it is the whole rollout.
    moments: u32,
    // In turns: the number of the agent that learns, from 1; 0: all do.
    agent_step: u32,
    agents: u32,
    minibatches: u32,
    // First place of the turn's statistics.
    first_place: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: Epoch;
@group(0) @binding(1) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> iteration: array<u32>;

var<workgroup> lanes: array<f32, WG>;

// Of one place of the epoch before this one.
fn divergence(i: u32) -> f32 {
    if (i >= p.places) {
        return 0.0;
    }
    return statistics[2u * (p.first_place + (p.number - 1u) * p.places + i)].w;
}

// 1 / rows that count in an epoch.
fn share() -> f32 {
    if (p.agent_step == 0u) {
        return scalars[14];
    }
    var rows = 0.0;
    for (var m = 0u; m < p.minibatches; m++) {
        rows += 1.0 / scalars[16u + m * p.agents + p.agent_step - 1u];
    }
    return 1.0 / rows;
}

fn normalise() {
    if (p.enabled == 0u) {
        scalars[3] = 0.0;
        scalars[4] = 1.0;
        return;
    }
    let first = scalars[0] + p.weight * (scalars[7] - scalars[0]);
    let second = scalars[1] + p.weight * (scalars[8] - scalars[1]);
    let debias = scalars[2] + p.weight * (1.0 - scalars[2]);
    scalars[0] = first;
    scalars[1] = second;
    scalars[2] = debias;
    let scale = max(debias, 1e-5);
    let mean = first / scale;
    scalars[3] = mean;
    scalars[4] = sqrt(max(second / scale - mean * mean, p.floor));
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    if (p.number > 0u && p.target_kl > 0.0 && p.further == 0u) {
        // Eight a turn, each spelled out: a processor that plays a GPU ends loops after 65,535 turns.
        for (var i = lane; i < p.places; i += 8u * WG) {
            sum += divergence(i);
            sum += divergence(i + 1u * WG);
            sum += divergence(i + 2u * WG);
            sum += divergence(i + 3u * WG);
            sum += divergence(i + 4u * WG);
            sum += divergence(i + 5u * WG);
            sum += divergence(i + 6u * WG);
            sum += divergence(i + 7u * WG);
        }
    }
    lanes[lane] = sum;
    workgroupBarrier();
    if (lane != 0u) {
        return;
    }
    if (p.number == 0u && p.further == 0u) {
        scalars[12] = 0.0;
    }
    var all = 0.0;
    for (var other = 0u; other < WG; other++) {
        all += lanes[other];
    }
    if (p.target_kl > 0.0 && all * share() > p.target_kl) {
        scalars[12] = 1.0;
    }
    if (scalars[12] == 1.0) {
        return;
    }
    if (p.moments > 0u) {
        for (var i = 0u; i < 4u; i++) {
            scalars[5u + i] = scalars[p.moments + i];
        }
    }
    scalars[13] += 1.0 - f32(p.further);
    scalars[11] = p.entropy + p.entropy_step * f32(min(iteration[0], p.iterations));
    normalise();
}
