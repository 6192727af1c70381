// Parameters of the metrics of an iteration, and the sums of a part of it, shared by ppo/metrics_sums and ppo/write_metrics.

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
    // Workgroups of ppo/metrics_sums.
    parts: u32,
}

// Sums over some values and how they spread.
struct Spread {
    // A number near the mean, the sums of the distances from it and of their squares, and the number of values.
    near: f32,
    distances: f32,
    squares: f32,
    count: f32,
}

// Sums of a workgroup.
struct Sums {
    // Policy loss, value loss, entropy, KL divergence.
    losses: vec4<f32>,
    // Returns, episodes, steps and terminations of the episodes that ended.
    ended: vec4<f32>,
    // Clipped rows and rewards.
    others: vec4<f32>,
    advantages: Spread,
    returns: Spread,
}
