// Deals the steps of a rollout to the minibatches of an epoch: for every quad of environments, a pseudorandom permutation of the
// sequences of `chunk` steps. Minibatches are ranges of places in the permutation. One invocation lists the steps of one place.

import package::constants::{WG, ROW};
import package::lib::random::threefry;

struct Shuffle {
    seed_low: u32,
    seed_high: u32,
    // Number of the epoch within the iteration, over all agent steps.
    epoch: u32,
    // Environments / 4.
    quads: u32,
    // Steps of a sequence (1 without a GRU), and sequences of a rollout.
    chunk: u32,
    chunks: u32,
    // First u32 of the order in dones_and_masks.
    order: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: Shuffle;
@group(0) @binding(1) var<storage, read> iteration: array<u32>;
@group(0) @binding(2) var<storage, read_write> dones_and_masks: array<u32>;

// After 16 rounds the orders already pass the chi-squared tests of `src/ppo/shuffle_tests.rs`.
const ROUNDS: u32 = 24u;

// Position of `index` in a permutation of 0..chunks: a swap-or-not network. Every round pairs the indices that add up to a random
// number, modulo `chunks`, and exchanges each pair with probability 1/2.
fn permuted(key: vec2<u32>, quad: u32, index: u32) -> u32 {
    var x = index;
    for (var round = 0u; round < ROUNDS; round++) {
        let sum = threefry(key, vec2<u32>(0x80000000u | round, quad)).x % p.chunks;
        let partner = (sum + p.chunks - x) % p.chunks;
        let coins = threefry(key, vec2<u32>(max(x, partner), quad)).x;
        x = select(x, partner, ((coins >> round) & 1u) == 1u);
    }
    return x;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * ROW + id.x;
    if (index >= p.chunks * p.quads) {
        return;
    }
    let quad = index % p.quads;
    let place = index / p.quads;
    let key = threefry(vec2<u32>(p.seed_low, p.seed_high), vec2<u32>(iteration[0], p.epoch));
    let sequence = permuted(key, quad, place);
    for (var step = 0u; step < p.chunk; step++) {
        dones_and_masks[p.order + (place * p.chunk + step) * p.quads + quad] = sequence * p.chunk + step;
    }
}
