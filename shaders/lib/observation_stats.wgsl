// Parameters and columns of the running statistics of observations, shared by ppo/observation_sums and ppo/running_mean_std.

struct RunningMeanStd {
    steps: u32,
    agents: u32,
    obs_dim: u32,
    state_dim: u32,
    quads: u32,
    // First quad of the states, and of the masks.
    first_state: u32,
    masks: u32,
    // 1: every agent has networks and statistics of its own.
    separate: u32,
    // 0: see add_compensated.
    zero: u32,
    // Workgroups of ppo/observation_sums that sum a column.
    parts: u32,
    pad1: u32,
    pad2: u32,
}

struct Column {
    // Agents that share the column, and the feature's number in their observations or in a state.
    first_agent: u32,
    agents: u32,
    number: u32,
    of_state: bool,
}

// Columns of the observations; those of states follow.
fn observed_columns(agents: u32, obs_dim: u32, separate: u32) -> u32 {
    return select(1u, agents, separate == 1u) * obs_dim;
}

fn column_of(which: u32, agents: u32, obs_dim: u32, separate: u32) -> Column {
    let observed = observed_columns(agents, obs_dim, separate);
    if (which >= observed) {
        return Column(0u, 1u, which - observed, true);
    }
    return Column(which / obs_dim, select(agents, 1u, separate == 1u), which % obs_dim, false);
}

// First entry of the column in the running statistics.
fn first_entry(column: Column, agents: u32, obs_dim: u32) -> u32 {
    return select(column.first_agent, agents, column.of_state) * obs_dim + column.number;
}
