// MPE's simple_speaker_listener and simple_reference: two agents communicate which of three landmarks is the goal. The functions of an
// env::DeviceEnv.

struct Parameters {
    // 1: simple_reference, both agents speak and move; 0: simple_speaker_listener, agent 0 speaks and agent 1 moves.
    reference: u32,
    // Size of the vocabulary.
    words: u32,
}

struct State {
    landmark: array<vec2<f32>, LANDMARKS>,
}

struct AgentState {
    position: vec2<f32>,
    velocity: vec2<f32>,
    // The landmark that the agent observes as the other agent's goal.
    goal: u32,
    // Its last message, counted from 1; 0: none yet.
    message: u32,
}

const LANDMARKS: u32 = 3u;
// Stay, -x, +x, -y, +y.
const MOVES: u32 = 5u;
const TIME_STEP: f32 = 0.1;
const DAMPING: f32 = 0.25;
const GAIN: f32 = 5.0;
// Weight of an agent's local reward in simple_reference.
const LOCAL_RATIO: f32 = 0.5;
// Random draws per episode.
const DRAWS: u32 = 6u;

// The `number`-th random draw of a new episode.
fn draw(number: u32) -> vec2<f32> {
    return random_at(episode() * DRAWS + number);
}

fn reset() {
    for (var a = 0u; a < agents(); a++) {
        set_position(a, 2.0 * draw(a) - 1.0);
    }
    for (var l = 0u; l < LANDMARKS; l++) {
        state.landmark[l] = 2.0 * draw(AGENTS + l) - 1.0;
    }
    let goals = vec2<u32>(draw(AGENTS + LANDMARKS) * f32(LANDMARKS));
    set_goal(0u, goals.x);
    set_goal(1u, goals.y);
}

// Whether the agent is the speaker of simple_speaker_listener, who does not move.
fn speaks_only(agent: u32) -> bool {
    return parameters.reference == 0u && agent == 0u;
}

// Clamped, because it is an index and may come from a file.
fn goal(agent: u32) -> u32 {
    return min(get_goal(agent), LANDMARKS - 1u);
}

// Writes a pair of features at `index` and returns the next index.
fn feature_pair(index: u32, value: vec2<f32>) -> u32 {
    feature(index, value.x);
    feature(index + 1u, value.y);
    return index + 2u;
}

// Writes `size` features: `on` at index `number`, `off` elsewhere. Returns the next index.
fn one_hot(index: u32, number: u32, size: u32, off: f32, on: f32) -> u32 {
    for (var i = 0u; i < size; i++) {
        feature(index + i, select(off, on, i == number));
    }
    return index + size;
}

// Writes the colour of the landmark that is the other agent's goal.
fn colour(index: u32, agent: u32) -> u32 {
    let dark = select(0.15, 0.25, parameters.reference == 1u);
    return one_hot(index, goal(agent), LANDMARKS, dark, dark + 0.5);
}

fn observe(agent: u32) {
    if (speaks_only(agent)) {
        // Padding: observations of all agents have the same size.
        for (var i = colour(0u, agent); i < FEATURES; i++) {
            feature(i, 0.0);
        }
        return;
    }
    var at = feature_pair(0u, get_velocity(agent));
    let here = get_position(agent);
    for (var l = 0u; l < LANDMARKS; l++) {
        at = feature_pair(at, state.landmark[l] - here);
    }
    if (parameters.reference == 1u) {
        at = colour(at, agent);
    }
    // Without a message 0 - 1 wraps around to a number that is no index: all zeros.
    one_hot(at, get_message(1u - agent) - 1u, parameters.words, 0.0, 1.0);
}

// simple_reference allows all moves and messages; the speaker only has messages, the listener only moves.
fn action_mask(agent: u32) -> u32 {
    if (parameters.reference == 1u) {
        return (1u << (MOVES + parameters.words)) - 1u;
    }
    return (1u << select(MOVES, parameters.words, speaks_only(agent))) - 1u;
}

// Force of a move in one of the four directions, or none.
fn push(direction: u32) -> vec2<f32> {
    let x = select(0.0, -1.0, direction == 1u) + select(0.0, 1.0, direction == 2u);
    let y = select(0.0, -1.0, direction == 3u) + select(0.0, 1.0, direction == 4u);
    return GAIN * vec2<f32>(x, y);
}

// Vector from the other agent to its goal.
fn to_goal(agent: u32) -> vec2<f32> {
    return state.landmark[goal(agent)] - get_position(1u - agent);
}

fn step() -> Outcome {
    for (var a = 0u; a < agents(); a++) {
        var direction = choice(a, 0u);
        var message = choice(a, 1u) + 1u;
        if (parameters.reference == 0u) {
            message = select(0u, direction + 1u, speaks_only(a));
            direction = select(direction, 0u, speaks_only(a));
        }
        let before = get_velocity(a);
        // The old velocity moves the position, as in mpe2.
        set_position(a, get_position(a) + before * TIME_STEP);
        set_velocity(a, before * (1.0 - DAMPING) + push(direction) * TIME_STEP);
        set_message(a, message);
    }
    let offset = to_goal(0u);
    var local = vec2<f32>(-dot(offset, offset));
    if (parameters.reference == 1u) {
        local = -vec2<f32>(length(offset), length(to_goal(1u)));
    }
    let mean = 0.5 * (local.x + local.y);
    let mixed = (1.0 - LOCAL_RATIO) * mean + LOCAL_RATIO * local;
    reward(0u, mixed.x);
    reward(1u, mixed.y);
    mean_reward(mean);
    return CONTINUES;
}
