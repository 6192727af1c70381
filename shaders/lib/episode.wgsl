// Reports action masks and episode ends, laid out as in env::RolloutBuffers. Uses bindings 5 and 6 of every environment.

@group(0) @binding(5) var<storage, read_write> dones_and_masks: array<u32>;
@group(0) @binding(6) var<storage, read_write> episodes: array<f32>;

// Environment `env` of `envs`, in step `step` of a rollout of `steps`.
struct Moment {
    env: u32,
    envs: u32,
    step: u32,
    steps: u32,
}

// Result of `settle`, on which the environment has to act.
struct End {
    // Number of truncations so far, to be passed to the next step's `settle`.
    cut: u32,
    // The environment must write the final observation to `slot`, before it starts the next episode.
    truncated: bool,
    slot: u32,
    // The environment must start the next episode.
    over: bool,
}

// Writes an agent's action mask, one bit per allowed action; `row` is slot * agents + agent.
fn permit(now: Moment, row: u32, mask: u32) {
    dones_and_masks[(now.steps + row) * now.envs + now.env] = mask;
}

// Reports the outcome of a step in an episode of `taken` steps so far and return `total` (mean over agents). `cut` is `End.cut` of
// the previous step, also across rollouts.
fn settle(now: Moment, taken: u32, total: f32, cut: u32, terminated: bool, truncated: bool) -> End {
    var end: End;
    end.over = terminated || truncated;
    // Termination takes precedence: a terminal state has no value to bootstrap from the final observation.
    end.truncated = truncated && !terminated;
    // Every rollout starts again with its first truncation slot.
    let before = select(cut, 0u, now.step == 0u);
    end.slot = now.steps + 1u + before;
    end.cut = before + u32(end.truncated);
    dones_and_masks[now.step * now.envs + now.env] = select(u32(terminated), 2u + before, end.truncated);
    if (end.over) {
        episodes[now.env] += total;
        episodes[now.envs + now.env] += 1.0;
        episodes[2u * now.envs + now.env] += f32(taken);
        episodes[3u * now.envs + now.env] += f32(terminated);
    }
    return end;
}
