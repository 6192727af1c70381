//! The device's order is that of a plain implementation, lists every step once, and is random.

use std::collections::BTreeMap;

use super::super::testing::{gpu, run_at};
use super::*;
use crate::random::threefry;

/// The order `[place][quad]` of the kernel, computed on the CPU.
pub fn order(shuffle: &Shuffle, iteration: u32) -> Vec<u32> {
    let key = threefry([shuffle.seed_low, shuffle.seed_high], [iteration, shuffle.epoch]);
    let (chunks, chunk, quads) = (shuffle.chunks, shuffle.chunk, shuffle.quads);
    let mut order = vec![0; (chunks * chunk * quads) as usize];
    for quad in 0..quads {
        let mut places: Vec<u32> = (0..chunks).collect();
        // As `ROUNDS` in the shader.
        for round in 0..24 {
            let sum = threefry(key, [1 << 31 | round, quad])[0] % chunks;
            let swaps = |pair: u32| threefry(key, [pair, quad])[0] >> round & 1 == 1;
            for place in &mut places {
                let partner = (sum + chunks - *place) % chunks;
                *place = if swaps(partner.max(*place)) { partner } else { *place };
            }
        }
        for (place, sequence) in (0..).zip(places) {
            for step in 0..chunk {
                order[((place * chunk + step) * quads + quad) as usize] = sequence * chunk + step;
            }
        }
    }
    order
}

fn with(quads: u32, chunk: u32, chunks: u32) -> Shuffle {
    Shuffle { seed_low: 7, seed_high: STREAM, quads, chunk, chunks, ..Shuffle::default() }
}

#[test]
fn every_quad_lists_every_step_once_and_neighbours_are_left_alone() {
    let gpu = gpu();
    let kernel = kernel(&gpu).unwrap();
    for (quads, chunk, chunks, epoch, iteration) in [
        (1, 1, 2, 0, 0),
        (3, 1, 3, 1, 0),
        (5, 1, 64, 9, 3),
        (2, 3, 7, 0, 1),
        (1, 10, 257, 2, 9),
        (33, 1, 25, 1, 1),
    ] {
        let shuffle = Shuffle { epoch, order: 5, ..with(quads, chunk, chunks) };
        let words = (quads * chunk * chunks) as usize;
        let buffer = gpu.upload("dones_and_masks", &vec![u32::MAX; words + 9]).unwrap();
        let table = gpu.uniform_table("shuffle", &[shuffle]).unwrap();
        let now = gpu.upload("iteration", &[iteration, 0, 0, 0]).unwrap();
        let group = bind(&gpu, &kernel, [&table, &now, &buffer]).unwrap();
        run_at(&gpu, &kernel, &group, groups(&kernel.variant, &shuffle));
        let got: Vec<u32> = gpu.read(&buffer).unwrap();
        let (before, rest) = got.split_at(5);
        assert!(before.iter().chain(&rest[words..words + 4]).all(|word| *word == u32::MAX));
        assert_eq!(rest[..words], order(&shuffle, iteration), "{shuffle:?}");
        for quad in 0..quads as usize {
            let mut steps: Vec<u32> =
                rest[..words].iter().skip(quad).step_by(quads as usize).copied().collect();
            // Steps of a sequence stay together.
            for sequence in steps.chunks_exact(chunk as usize) {
                assert!(sequence[0].is_multiple_of(chunk) && sequence.is_sorted());
            }
            steps.sort_unstable();
            assert!(steps.into_iter().eq(0..chunk * chunks), "{shuffle:?}, quad {quad}");
        }
    }
}

/// Chi-squared tests: all orders of few sequences are equally frequent, as are all pairs of neighbours of many.
#[test]
fn orders_are_uniform_and_independent_between_quads_epochs_and_iterations() {
    let excess = |counts: &BTreeMap<Vec<u32>, u32>, cells: u32| {
        assert_eq!(counts.len() as u32, cells);
        let expected = f64::from(counts.values().sum::<u32>()) / f64::from(cells);
        let squares = counts.values().map(|count| (f64::from(*count) - expected).powi(2)).sum::<f64>();
        // In standard deviations of the chi-squared distribution.
        (squares / expected - f64::from(cells - 1)) / f64::from(2 * (cells - 1)).sqrt()
    };
    for (chunks, cells) in [(2, 2), (3, 6), (4, 24), (5, 120)] {
        let mut counts = BTreeMap::new();
        for iteration in 0..40 {
            for epoch in 0..10 {
                let all = order(&Shuffle { epoch, ..with(30, 1, chunks) }, iteration);
                for quad in 0..30 {
                    let own: Vec<u32> = all.iter().skip(quad).step_by(30).copied().collect();
                    *counts.entry(own).or_insert(0u32) += 1;
                }
            }
        }
        let excess = excess(&counts, cells);
        assert!(excess.abs() < 4.0, "{chunks} sequences: {excess:.1}");
    }
    // Places of two steps of 16; then of the same step in two quads, in two epochs and in two iterations.
    let mut counts = [const { BTreeMap::new() }; 4];
    let place = |order: &[u32], quad: usize, step: u32| {
        order.iter().skip(quad).step_by(100).position(|other| *other == step).unwrap() as u32
    };
    for trial in 0..60 {
        let of = |epoch, iteration| order(&Shuffle { epoch, ..with(100, 1, 16) }, iteration);
        let [own, epoch, iteration] = [of(2 * trial, 0), of(2 * trial + 1, 0), of(2 * trial, 1)];
        for quad in 0..100 {
            let at = place(&own, quad, 3);
            let others = [
                place(&own, quad, 4),
                place(&own, (quad + 1) % 100, 3),
                place(&epoch, quad, 3),
                place(&iteration, quad, 3),
            ];
            for (counts, other) in counts.iter_mut().zip(others) {
                *counts.entry(vec![at, other]).or_insert(0u32) += 1;
            }
        }
    }
    for (number, (counts, cells)) in counts.iter().zip([16 * 15, 256, 256, 256]).enumerate() {
        let excess = excess(counts, cells);
        assert!(excess.abs() < 4.0, "pair {number}: {excess:.1}");
    }
}
