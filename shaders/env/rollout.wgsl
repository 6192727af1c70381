// The rollout kernel of environments that are WGSL functions: a workgroup owns whole environments with all their agents, and plays many
// steps of them. Its invocations compute the actors' outputs for a block of rows together, then an invocation draws the actions
// of a quad of rows, then an invocation moves an environment on. This text follows env/functions.

import package::constants::{WG, QUADS};
import package::lib::block::{values, value_at, sums, column_group, first_quad};
import package::lib::block_forward::{Row, stacks, run_layers};
import package::lib::draw::draw;
import package::lib::slots::batch;

// Quads of environments that a workgroup owns: as many as fill a block of rows with their agents.
const phalanx_ENV_QUADS: u32 = max(QUADS / AGENTS, 1u);

// Row `index` of the workgroup, agent by agent. A row past the last one repeats that one.
fn phalanx_row_at(group: u32, index: u32, end: u32) -> Row {
    let i = min(index, end - 1u);
    let agent = i / phalanx_ENV_QUADS;
    let quad = group * phalanx_ENV_QUADS + i % phalanx_ENV_QUADS;
    let row = (phalanx_now * AGENTS + agent) * batch.quads + min(quad, batch.quads - 1u);
    return Row(row, agent, index < end && quad < batch.quads, 0u, false);
}

// Makes the sums of the last layer the values that `draw` reads.
fn phalanx_end_head(outputs: u32, local: u32) {
    // Others may still be multiplying the values.
    workgroupBarrier();
    let c = 4u * column_group(local);
    for (var i = 0u; i < 2u; i++) {
        for (var j = 0u; j < 4u; j++) {
            if (c + j < outputs) {
                values[value_at(c + j, first_quad(local) + i)] = sums[4u * i + j];
            }
        }
    }
    workgroupBarrier();
}

// Draws the actions of all agents of the workgroup's environments.
fn phalanx_act(group: u32, local: u32) {
    let all = AGENTS * phalanx_ENV_QUADS;
    for (var start = 0u; start < all; start += QUADS) {
        let end = min(all, start + QUADS);
        let mine = start + first_quad(local);
        let rows = array<Row, 2>(phalanx_row_at(group, mine, end), phalanx_row_at(group, mine + 1u, end));
        // One network for all agents: those with one for each go step by step.
        run_layers(0u, stacks[0].working, phalanx_row_at(group, start + local % QUADS, end), rows, local);
        phalanx_end_head(stacks[0].layer[stacks[0].layers - 1u].outputs, local);
        let own = phalanx_row_at(group, start + local, end);
        if (local < QUADS && own.exists) {
            draw(phalanx_now, own.row - phalanx_now * AGENTS * batch.quads, local);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let envs = 4u * phalanx_ENV_QUADS;
    phalanx_env = group.x * envs + local;
    phalanx_now = phalanx_p.step;
    let plays = local < envs && phalanx_env < phalanx_p.envs;
    if (phalanx_p.reset == 1u) {
        if (plays) {
            phalanx_start();
        }
        return;
    }
    if (plays) {
        phalanx_load_all();
    }
    for (var step = phalanx_p.step; step < phalanx_p.end; step++) {
        phalanx_now = step;
        phalanx_act(group.x, local);
        storageBarrier();
        if (plays) {
            phalanx_play();
        }
        storageBarrier();
    }
    if (plays) {
        phalanx_store_all();
    }
}
