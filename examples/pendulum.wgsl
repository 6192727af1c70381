// Swinging up a pendulum with a weak motor, by the rules of Gymnasium's Pendulum-v1.

struct Parameters {
    gravity: f32,
    // Largest torque of the motor.
    torque: f32,
}

struct State {
    // From the upright position.
    angle: f32,
    velocity: f32,
}

const PI = 3.14159265;
const TIME_STEP = 0.05;
const MAX_VELOCITY = 8.0;

fn reset() {
    let start = 2.0 * random(0u) - 1.0;
    state.angle = PI * start.x;
    state.velocity = start.y;
}

fn step() -> Outcome {
    // With `squash`, an action lies in (-1, 1).
    let torque = parameters.torque * clamp(real(0u, 0u), -1.0, 1.0);
    let cost = state.angle * state.angle + 0.1 * state.velocity * state.velocity + 0.001 * torque * torque;
    reward(0u, -cost);
    let acceleration = 1.5 * parameters.gravity * sin(state.angle) + 3.0 * torque;
    state.velocity = clamp(state.velocity + TIME_STEP * acceleration, -MAX_VELOCITY, MAX_VELOCITY);
    let angle = state.angle + TIME_STEP * state.velocity;
    // Within half a turn of the upright position.
    state.angle = angle - 2.0 * PI * round(angle / (2.0 * PI));
    // The time limit of 200 steps, given in Rust, ends the episode.
    return CONTINUES;
}

fn observe(agent: u32) {
    feature(0u, cos(state.angle));
    feature(1u, sin(state.angle));
    feature(2u, state.velocity / MAX_VELOCITY);
}
