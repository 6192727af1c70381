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

// a less b. Compilers may reassociate sums, but the difference of the first parts has to come first.
fn difference(a: vec2<f32>, b: vec2<f32>) -> f32 {
    return rounded(a.x - b.x) + (a.y - b.y);
}

// The price `distance` above another one.
fn offset(price: vec2<f32>, distance: f32) -> vec2<f32> {
    return vec2<f32>(price.x, price.y + distance);
}

// Whether src/indicators/series.rs encoded a high or low as a price, rather than as its distance from the close.
fn is_price(code: f32) -> bool {
    return (bitcast<u32>(code) & 1u) == 1u;
}

// Fills in high and low, whose codes are given, of a bar with a close.
fn set_edges(bar: ptr<function, Bar>, high: f32, low: f32) {
    let close = (*bar).close;
    (*bar).high = offset(close, high);
    (*bar).low = offset(close, low);
    (*bar).above = high;
    (*bar).below = -low;
    // Rare: a close more than twice as far from 0 as its high or low.
    if (is_price(high) || is_price(low)) {
        if (is_price(high)) {
            (*bar).high = vec2<f32>(high, 0.0);
        }
        if (is_price(low)) {
            (*bar).low = vec2<f32>(low, 0.0);
        }
        (*bar).above = select(high, difference((*bar).high, close), is_price(high));
        (*bar).below = select(-low, difference(close, (*bar).low), is_price(low));
    }
}

// The greatest of high less low, high less the close before and the close before less low.
fn true_range(bar: Bar) -> f32 {
    return max(bar.above + bar.below, max(bar.above + bar.change, bar.below - bar.change));
}

// Mean of high, low and close, less the close.
fn typical(bar: Bar) -> f32 {
    return (bar.above - bar.below) * (1.0 / 3.0);
}
