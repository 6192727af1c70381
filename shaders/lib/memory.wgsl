// State of an invocation that all modules of an indicator kernel share. Completed with the binding of the ring buffers if there are any.

var<private> lane: u32;
var<private> lanes: u32;

// 0 at run time, unknown to the compiler.
var<private> zero: u32;

// x, rounded to f32. Compilers may reassociate sums and would remove the compensation of rounding errors, but not across the
// exclusive or.
fn rounded(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ zero);
}

// Adds x to the pair (sum, rounding error).
fn add_exactly(pair: vec2<f32>, x: f32) -> vec2<f32> {
    let y = x + pair.y;
    let sum = rounded(pair.x + y);
    return vec2<f32>(sum, y - rounded(sum - pair.x));
}
