// Action masks and ends of episodes that an environment reports, laid out as in env::RolloutBuffers.
// Bindings 5 and 6 of every environment.

@group(0) @binding(5) var<storage, read_write> dones_and_masks: array<u32>;
@group(0) @binding(6) var<storage, read_write> episodes: array<f32>;

// Environment `env` of `envs`, in step `step` of a rollout of `steps`.
struct Moment {
    env: u32,
    envs: u32,
    step: u32,
    steps: u32,
}

// What a step leaves to the environment to do.
struct End {
    // To be handed in with the next step.
    cut: u32,
    // If so, what the episode saw last is to be shown in `slot`, before the next one begins.
    truncated: bool,
    slot: u32,
    // If so, the next episode is to begin.
    over: bool,
}

// Which actions an agent may take in a slot, a bit each; `row` is slot * agents + agent.
fn permit(now: Moment, row: u32, mask: u32) {
    dones_and_masks[(now.steps + row) * now.envs + now.env] = mask;
}

// After every step: how it left the episode, which has taken `taken` steps and returned `total` (mean over agents). `cut` is
// what the step before gave back, whichever rollout that was in.
fn settle(now: Moment, taken: u32, total: f32, cut: u32, terminated: bool, truncated: bool) -> End {
    var end: End;
    end.over = terminated || truncated;
    // What is both has come to an end of its own: no future, whose value would be asked of a last observation.
    end.truncated = truncated && !terminated;
    // Slots after the rollout's are handed out anew in every rollout.
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
