// Two agents in a corridor must stand on their goals at the same time.

struct State {
    position: array<u32, AGENTS>,
    goal: array<u32, AGENTS>,
}

const CELLS: u32 = 16u;
const BONUS: f32 = 1.0;

fn reset() {
    // Every number, given once per episode, has two random numbers of its own in [0, 1).
    let positions = vec2<u32>(random(0u) * f32(CELLS));
    let goals = vec2<u32>(random(1u) * f32(CELLS));
    for (var a = 0u; a < AGENTS; a++) {
        state.position[a] = positions[a];
        state.goal[a] = goals[a];
    }
}

fn step() -> Outcome {
    var distance = 0.0;
    for (var a = 0u; a < AGENTS; a++) {
        // Left, stay, right. The masks forbid every action that would leave the corridor.
        state.position[a] += action(a) - 1u;
        distance += abs(offset(state.goal[a], state.position[a]));
    }
    let arrived = distance == 0.0;
    for (var a = 0u; a < AGENTS; a++) {
        reward(a, select(-distance / f32(CELLS), BONUS, arrived));
    }
    return select(CONTINUES, TERMINATED, arrived);
}

fn offset(there: u32, here: u32) -> f32 {
    return f32(there) - f32(here);
}

// Features lie in about [-1, 1]: own position, offset to the other agent, offset to the own goal.
fn observe(agent: u32) {
    let last = f32(CELLS - 1u);
    let here = state.position[agent];
    feature(0u, 2.0 * f32(here) / last - 1.0);
    feature(1u, offset(state.position[1u - agent], here) / last);
    feature(2u, offset(state.goal[agent], here) / last);
}

// Left is bit 0, stay bit 1, right bit 2; the walls block left and right.
fn action_mask(agent: u32) -> u32 {
    let here = state.position[agent];
    let left = select(0u, 1u, here > 0u);
    let right = select(0u, 4u, here < CELLS - 1u);
    return left | 2u | right;
}
