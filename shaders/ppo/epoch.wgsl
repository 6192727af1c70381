// Begins a minibatch (lib/minibatch) that follows no optimizer step, or whose statistics were computed since: those others begin in
// ppo/end_step. One workgroup.

import package::constants::WG;
import package::lib::minibatch::begin_minibatch;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    begin_minibatch(lane);
}
