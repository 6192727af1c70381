// One bar as indicators read it. A missing price is NaN.
struct Bar {
    // Close less the close before; 0 at the first close.
    change: f32,
    // High less close, close less low.
    above: f32,
    below: f32,
    // Close.
    price: f32,
    volume: f32,
    // Consecutive bars up to this one without a missing close, without a missing price, without a missing price or volume.
    closes: f32,
    candles: f32,
    trades: f32,
}

// The greatest of high less low, high less the close before and the close before less low.
fn true_range(bar: Bar) -> f32 {
    return max(bar.above + bar.below, max(bar.above + bar.change, bar.below - bar.change));
}

// Mean of high, low and close, less the close.
fn typical(bar: Bar) -> f32 {
    return (bar.above - bar.below) * (1.0 / 3.0);
}
