// A network's optimizer state is STATE numbers: steps taken, norm of the gradient, factor on the scaled gradient, learning rate, 1 - beta1^t,
// 1 - beta2^t, state of the step, steps skipped so far. The state of the step is 1 if it is applied, -k if it is skipped as the k-th in
// a row, and 2 + k while another agent is trained and the network's last k own steps were skipped.

const APPLIED: f32 = 1.0;

fn skipped(in_a_row: f32) -> f32 {
    return -in_a_row;
}

fn waiting(in_a_row: f32) -> f32 {
    return 2.0 + in_a_row;
}

fn is_skipped(state: f32) -> bool {
    return state <= 0.0;
}

// Own steps skipped in a row, up to the last one.
fn skipped_in_a_row(state: f32) -> f32 {
    return select(max(-state, 0.0), state - 2.0, state >= 2.0);
}
