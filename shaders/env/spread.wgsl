// MPE's simple_spread: N agents cover N landmarks and avoid collisions. The functions of an env::DeviceEnv.

struct Parameters {
    // 1: rules of the MAPPO paper's code, 0: rules of MPE2.
    paper: u32,
}

struct AgentState {
    position: vec2<f32>,
    velocity: vec2<f32>,
    // The landmark with the agent's number; any agent may cover it.
    landmark: vec2<f32>,
    // Displacement in this step.
    moved: vec2<f32>,
}

// Steps of an episode that terminates.
const LENGTH: u32 = 25u;
const TIME_STEP: f32 = 0.1;
const DAMPING: f32 = 0.25;
const GAIN: f32 = 5.0;
const STIFFNESS: f32 = 100.0;
const MARGIN: f32 = 1e-3;
// Distance of two touching agents: two radii.
const CONTACT: f32 = 0.3;

// The `number`-th random position of an episode, uniform in [-1, 1) x [-1, 1).
fn random_position(number: u32) -> vec2<f32> {
    return 2.0 * random_at(episode() * 2u * AGENTS + number) - 1.0;
}

fn reset() {
    for (var a = 0u; a < agents(); a++) {
        set_position(a, random_position(a));
        set_velocity(a, vec2<f32>(0.0));
        let extent = select(1.0, 0.8, parameters.paper == 1u);
        set_landmark(a, extent * random_position(AGENTS + a));
    }
}

// Positions of landmarks and other agents are relative to the agent.
fn observe(agent: u32) {
    let here = get_position(agent);
    var at = feature_pair(0u, get_velocity(agent));
    at = feature_pair(at, here);
    for (var l = 0u; l < agents(); l++) {
        at = feature_pair(at, get_landmark(l) - here);
    }
    for (var other = 0u; other < agents(); other++) {
        if (other != agent) {
            at = feature_pair(at, get_position(other) - here);
        }
    }
    // The others' messages, which are always zeros.
    for (var other = 1u; other < agents(); other++) {
        at = feature_pair(at, vec2<f32>(0.0));
    }
}

// Writes a pair of features at `index` and returns the next index.
fn feature_pair(index: u32, value: vec2<f32>) -> u32 {
    feature(index, value.x);
    feature(index + 1u, value.y);
    return index + 2u;
}

// Force of an action.
fn push(direction: u32) -> vec2<f32> {
    let along = select(1.0, -1.0, (direction % 2u == 1u) != (parameters.paper == 1u));
    let along_x = direction == 1u || direction == 2u;
    let along_y = direction == 3u || direction == 4u;
    return GAIN * along * vec2<f32>(select(0.0, 1.0, along_x), select(0.0, 1.0, along_y));
}

// Force of b on a: soft repulsion within two radii.
fn contact(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let apart = a - b;
    let distance = length(apart);
    if (distance == 0.0) {
        return vec2<f32>(0.0);
    }
    let inside = (CONTACT - distance) / MARGIN;
    // ln(1 + exp(x)) without overflow.
    let depth = max(inside, 0.0) + log(1.0 + exp(-abs(inside)));
    return STIFFNESS * MARGIN * depth / distance * apart;
}

fn step() -> Outcome {
    // All forces depend on the positions before the step.
    for (var a = 0u; a < agents(); a++) {
        var force = push(action(a));
        for (var other = 0u; other < agents(); other++) {
            if (other != a) {
                force += contact(get_position(a), get_position(other));
            }
        }
        let before = get_velocity(a);
        let after = before * (1.0 - DAMPING) + force * TIME_STEP;
        // The paper's code moves by the new velocity, MPE2 by the old one. Applied once all forces are known.
        set_velocity(a, after);
        set_moved(a, select(before, after, parameters.paper == 1u) * TIME_STEP);
    }
    for (var a = 0u; a < agents(); a++) {
        set_position(a, get_position(a) + get_moved(a));
    }
    give_rewards();
    return select(CONTINUES, TERMINATED, parameters.paper == 1u && steps_taken() >= LENGTH);
}

fn give_rewards() {
    var covered = 0.0;
    for (var l = 0u; l < agents(); l++) {
        var nearest = 1e9;
        for (var a = 0u; a < agents(); a++) {
            nearest = min(nearest, distance(get_position(a), get_landmark(l)));
        }
        covered -= nearest;
    }
    let number = f32(agents());
    var bumps = 0.0;
    for (var a = 0u; a < agents(); a++) {
        var own = 0.0;
        for (var other = 0u; other < agents(); other++) {
            if (other != a && distance(get_position(a), get_position(other)) < CONTACT) {
                own += 1.0;
            }
        }
        bumps += own;
        reward(a, 0.5 * covered - 0.5 * own);
    }
    if (parameters.paper == 0u) {
        mean_reward(0.5 * covered - 0.5 * bumps / number);
        return;
    }
    // Every agent receives the sum of all rewards, and also counts a collision with itself.
    let joint = number * (covered - 1.0) - bumps;
    for (var a = 0u; a < agents(); a++) {
        reward(a, joint);
    }
    mean_reward(joint);
}
