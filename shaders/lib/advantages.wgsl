// Parameters of the statistics of advantages, shared by ppo/advantage_sums and ppo/advantage_stats.

struct AdvantageStats {
    // f32s of one section of the targets.
    size: u32,
    agents: u32,
    envs: u32,
    // First u32 of the masks in dones_and_masks.
    masks: u32,
    // 1: every agent has networks of its own and is a group.
    separate: u32,
    // Number of minibatches of steps, and the steps of a chunk, which minibatches do not cut.
    minibatches: u32,
    chunk: u32,
    // Advantages are normalised over 0: the rollout, 1: the minibatch; 2: not at all.
    over: u32,
    // First u32 of the order in dones_and_masks (ppo/shuffle); 0: minibatches are consecutive steps.
    order: u32,
    // Workgroups that sum the rows of a minibatch of a group.
    parts: u32,
    pad0: u32,
    pad1: u32,
}

// First vec4 of the sums of a part.
fn sums_at(m: u32, groups: u32, group: u32, parts: u32, part: u32) -> u32 {
    return 2u * ((m * groups + group) * parts + part);
}
