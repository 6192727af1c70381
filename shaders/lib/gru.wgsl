// The GRU in the forward passes: where its states are kept between dispatches, and the cell. With the gates of input and state r =
// sigmoid(..), z = sigmoid(..), n = tanh(candidate of the input + r * candidate of the state), the new state is n + z (h - n).

import package::constants::TILE;
import package::lib::activation::{sigmoid, hyperbolic};
import package::lib::forward::{stacks, acts, Row};
import package::lib::slots::{batch, dones_and_masks};
import package::lib::layer_norm::{Stats, no_stats, stats_of_one, join};
import package::lib::network::{Layer, place};
import package::lib::quad::{to_quad, of_quad};

// States `[place][stack][entry][row of a slot]`: place 0 is scratch between the slots of a chunk, then come the states that enter
// slots 0, chunk, 2 chunk.., then those that truncated episodes left behind.
@group(0) @binding(8) var<storage, read_write> states: array<vec4<f32>>;

// The entries of a state that an invocation computes: every `step`-th from `first` on.
struct Share {
    first: u32,
    step: u32,
}

// Place of the state that enters a slot. It is kept at multiples of the chunk length and overwritten by the next one in between.
fn kept_place(slot: u32) -> u32 {
    return select(0u, 1u + slot / batch.recurrent.chunk, slot % batch.recurrent.chunk == 0u);
}

fn state_at(at: Row, state_place: u32, size: u32) -> u32 {
    let per_slot = batch.agents * batch.quads;
    return (state_place * 2u + at.stack) * size * per_slot + at.row % per_slot;
}

// Place of the state that the last step of a truncated episode left behind, for the value of its last observation.
fn truncated_place(number: u32) -> u32 {
    return 2u + batch.recurrent.steps / batch.recurrent.chunk + min(number, max(batch.recurrent.truncations, 1u) - 1u);
}

// Copies the state that enters into the row, 0 where an episode begins. `t` counts the slots of this dispatch.
fn load_state(at: Row, t: u32, share: Share) {
    let layer = stacks[at.stack].layer[stacks[at.stack].layers - 2u];
    let per_slot = batch.agents * batch.quads;
    let q = at.row % batch.quads;
    let to = place(at.row, batch.acts) + layer.input * TILE;
    let truncated_slot = at.slot > batch.recurrent.steps;
    var ended = dones_and_masks[select((max(at.slot, 1u) - 1u) * batch.quads, batch.recurrent.endings, at.slot == 0u) + q] != vec4<u32>(0u);
    ended = ended & vec4<bool>(!truncated_slot);
    if (t == 0u) {
        let size = layer.inputs;
        let first = state_at(at, select(kept_place(at.slot), truncated_place(at.slot - batch.recurrent.steps - 1u), truncated_slot), size);
        for (var j = share.first; j < size; j += share.step) {
            let h = select(states[first + j * per_slot], vec4<f32>(0.0), ended);
            if (at.exists) {
                acts[to + j * TILE] = to_quad(h);
            }
        }
    } else {
        // The state that the head read in the slot before.
        let head_input = stacks[at.stack].layer[stacks[at.stack].layers - 1u].input;
        let last = place(max(at.row, per_slot) - per_slot, batch.acts) + head_input * TILE;
        for (var j = share.first; j < layer.inputs; j += share.step) {
            let h = select(of_quad(acts[last + j * TILE]), vec4<f32>(0.0), ended);
            if (at.exists) {
                acts[to + j * TILE] = to_quad(h);
            }
        }
    }
}

// Computes the new state from the gates. Returns the statistics of the invocation's share.
fn gru_cell(at: Row, layer: Layer, to: u32, share: Share) -> Stats {
    let acts0 = place(at.row, batch.acts);
    let per_slot = batch.agents * batch.quads;
    let size = layer.inputs;
    // Rows of candidate, reset gate, update gate and the state's part of the candidate.
    let gates = acts0 + (layer.output - size) * TILE;
    let old = acts0 + layer.input * TILE;
    var all = no_stats();
    for (var j = share.first; j < size; j += share.step) {
        let i = gates + j * TILE;
        let r = to_quad(sigmoid(of_quad(acts[i + size * TILE])));
        let z = to_quad(sigmoid(of_quad(acts[i + 2u * size * TILE])));
        let n = to_quad(hyperbolic(of_quad(acts[i]) + of_quad(r) * of_quad(acts[i + 3u * size * TILE])));
        let h = of_quad(acts[old + j * TILE]);
        let made = to_quad(of_quad(n) + of_quad(z) * (h - of_quad(n)));
        if (at.exists) {
            acts[i] = n;
            acts[i + size * TILE] = r;
            acts[i + 2u * size * TILE] = z;
            acts[to + j * TILE] = made;
        }
        all = join(all, stats_of_one(of_quad(made)));
    }
    if (batch.recurrent.store_states == 1u && at.slot < batch.recurrent.steps && at.exists) {
        let next = state_at(at, kept_place(at.slot + 1u), size);
        for (var j = share.first; j < size; j += share.step) {
            states[next + j * per_slot] = of_quad(acts[to + j * TILE]);
        }
        // Only critics evaluate the last observation of a truncated episode.
        let signal = dones_and_masks[at.slot * batch.quads + at.row % batch.quads];
        if (at.stack == 1u && any(signal >= vec4<u32>(2u))) {
            for (var c = 0u; c < 4u; c++) {
                if (signal[c] >= 2u) {
                    let ends = state_at(at, truncated_place(signal[c] - 2u), size);
                    for (var j = share.first; j < size; j += share.step) {
                        states[ends + j * per_slot][c] = of_quad(acts[to + j * TILE])[c];
                    }
                }
            }
        }
    }
    return all;
}
