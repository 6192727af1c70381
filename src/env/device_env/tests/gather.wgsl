// Two agents gather at a goal. The rules use everything that an environment may.

struct Parameters {
    start: vec2<f32>,
    size: f32,
    cost: f32,
}

struct State {
    goal: vec2<f32>,
    visits: array<i32, OPTIONS>,
}

struct AgentState {
    at: vec2<f32>,
    carried: u32,
}

const OPTIONS = 3u;

fn reset() {
    state.goal = 2.0 * random(3u) - 1.0;
    state.visits[0] = i32(8.0 * random_at(episode() + 7u).x) - 4;
    for (var a = 0u; a < AGENTS; a++) {
        set_at(a, parameters.start);
    }
}

fn step() -> Outcome {
    var together = true;
    for (var a = 0u; a < AGENTS; a++) {
        let first = choice(a, 0u);
        let change = gain(choice(a, 1u));
        state.visits[first] -= 1;
        set_carried(a, get_carried(a) + first);
        let size = vec2<f32>(parameters.size);
        set_at(a, clamp(get_at(a) + vec2<f32>(f32(first) * change, change), -size, size));
        let away = abs(get_at(a) - state.goal);
        reward(a, -(away.x + away.y) - parameters.cost * f32(a));
        together = together && max(away.x, away.y) < 0.75;
    }
    if (together) {
        return TERMINATED;
    }
    // The number of episodes begun decides the patience.
    let late = steps_taken() >= patience((episode() + 1u) % 2u);
    return select(CONTINUES, TRUNCATED, late && state.visits[0] < -4);
}

fn observe(agent: u32) {
    let at = get_at(agent);
    feature(0u, at.x);
    feature(1u, at.y);
    feature(2u, state.goal.x - at.x);
    feature(3u, f32(get_carried(agent)));
    feature(4u, f32(steps_taken()));
}

// Who carries an odd number may not take option 2 of the first choice.
fn action_mask(agent: u32) -> u32 {
    return select(0x7bu, 0x7fu, get_carried(agent) % 2u == 0u);
}

fn global_state() {
    global_feature(0u, state.goal.x);
    global_feature(1u, state.goal.y);
    global_feature(2u, f32(state.visits[2]));
}
