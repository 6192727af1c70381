// One bar as indicators read it. A missing price is NaN.
//
// A price is the sum of two f32: a close and its rounding error, which together have 48 bits, or for a high or low a close and the
// distance from it. So the difference of two prices has the precision of f32 at any level, whatever other prices came between them.

import package::memory::rounded;

struct Bar {
    close: vec2<f32>,
    high: vec2<f32>,
    low: vec2<f32>,
    // Close less the close before, and the close before, rounded; neither has a meaning at the first close.
    change: f32,
    before: f32,
    // High less close, close less low.
    above: f32,
    below: f32,
    volume: f32,
    // Consecutive bars up to this one without a missing close, without a missing price, without a missing price or volume.
    closes: f32,
    candles: f32,
    trades: f32,
}

// A high or low, and its distance from the close.
struct Edge {
    price: vec2<f32>,
    distance: f32,
}

// a less b. Compilers may reassociate sums, but the difference of the first parts has to come first.
fn difference(a: vec2<f32>, b: vec2<f32>) -> f32 {
    return rounded(a.x - b.x) + (a.y - b.y);
}

// The price `distance` above another one.
fn offset(price: vec2<f32>, distance: f32) -> vec2<f32> {
    return vec2<f32>(price.x, price.y + distance);
}

// Decodes a high or low of src/indicators/series.rs: its distance from the close if the last bit is 0, otherwise the price.
fn edge(code: f32, close: vec2<f32>) -> Edge {
    let is_price = (bitcast<u32>(code) & 1u) == 1u;
    let price = vec2<f32>(code, 0.0);
    return Edge(select(offset(close, code), price, is_price), select(code, difference(price, close), is_price));
}

// The greatest of high less low, high less the close before and the close before less low.
fn true_range(bar: Bar) -> f32 {
    return max(bar.above + bar.below, max(bar.above + bar.change, bar.below - bar.change));
}

// Mean of high, low and close, less the close.
fn typical(bar: Bar) -> f32 {
    return (bar.above - bar.below) * (1.0 / 3.0);
}
