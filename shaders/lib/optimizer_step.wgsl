// State of a network's optimizer step, a number in its optimizer state (ppo/clip): 1 if the step is applied, -k if it is skipped as the
// k-th in a row, and 2 + k while another agent is trained and the network's last k own steps were skipped.

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
