// Numerical functions that f32 needs and WGSL lacks.

// Whether x is neither infinite nor NaN. The bits are tested because compilers may assume that no NaN occurs.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn nan() -> f32 {
    return bitcast<f32>(0x7fc00000u | QUIET);
}

// A private variable keeps the bit pattern out of constant evaluation, which refuses NaN.
var<private> QUIET: u32 = 0u;

// ln(1 + x) without the cancellation of log(1 + x) near 0.
fn log1p(x: f32) -> f32 {
    if (abs(x) < 0.03125) {
        return x * (1.0 - x * (0.5 - x * (1.0 / 3.0 - x * (0.25 - x * (0.2 - x * (1.0 / 6.0))))));
    }
    return log(1.0 + x);
}

// ln(now / before) for positive values; `change` is now less before.
fn log_ratio(now: f32, before: f32, change: f32) -> f32 {
    if (abs(change) < 0.03125 * before) {
        return log1p(change / before);
    }
    return log(now / before);
}

// exp(x) - 1 without the cancellation near 0.
fn expm1(x: f32) -> f32 {
    if (abs(x) < 0.25) {
        return x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0))))));
    }
    return exp(x) - 1.0;
}

// Adds x to the pair (sum, rounding error) with Kahan's compensation. `zero` is 0 at run time, unknown to the compiler: compilers
// reassociate sums and would remove the compensation, but not across the exclusive or.
fn add_compensated(pair: vec2<f32>, x: f32, zero: u32) -> vec2<f32> {
    let y = x + pair.y;
    let sum = bitcast<f32>(bitcast<u32>(pair.x + y) ^ zero);
    let taken = bitcast<f32>(bitcast<u32>(sum - pair.x) ^ zero);
    return vec2<f32>(sum, y - taken);
}
