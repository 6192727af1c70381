// Mean and deviation of the inputs of a LayerNorm, for four rows at once. Parts of a row are joined with the formula of Chan, Golub
// and LeVeque.

import package::lib::forward::{Inputs, input, clamped_input};

// Count, mean and sum of squared deviations of the values so far.
struct Stats {
    count: f32,
    mean: vec4<f32>,
    squares: vec4<f32>,
}

fn no_stats() -> Stats {
    return Stats(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
}

fn stats_of_one(value: vec4<f32>) -> Stats {
    return Stats(1.0, value, vec4<f32>(0.0));
}

fn join(a: Stats, b: Stats) -> Stats {
    let count = a.count + b.count;
    let apart = b.mean - a.mean;
    let share = b.count / count;
    return Stats(count, a.mean + apart * share, a.squares + b.squares + apart * apart * (a.count * share));
}

// 1 for an input that exists, 0 past the end, where the last one is read again.
fn weight_of(inputs: Inputs, k: u32) -> f32 {
    return select(0.0, 1.0, k < inputs.count);
}

// Statistics of all inputs of a layer. Unrolled by four: llvmpipe stops loops after 65,535 iterations.
fn input_stats(inputs: Inputs) -> Stats {
    var all = no_stats();
    for (var k = 0u; k < inputs.count; k += 4u) {
        let exists = vec4<f32>(1.0, weight_of(inputs, k + 1u), weight_of(inputs, k + 2u), weight_of(inputs, k + 3u));
        let a = input(inputs, k);
        let b = clamped_input(inputs, k + 1u);
        let c = clamped_input(inputs, k + 2u);
        let d = clamped_input(inputs, k + 3u);
        let count = exists.x + exists.y + exists.z + exists.w;
        let mean = a + ((b - a) * exists.y + (c - a) * exists.z + (d - a) * exists.w) / count;
        var squares = (a - mean) * (a - mean);
        squares += (b - mean) * (b - mean) * exists.y;
        squares += (c - mean) * (c - mean) * exists.z;
        squares += (d - mean) * (d - mean) * exists.w;
        all = join(all, Stats(count, mean, squares));
    }
    return all;
}
