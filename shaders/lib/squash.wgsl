// Continuous actions squashed into (-1, 1) by tanh, for four rows at once.

import package::lib::activation::hyperbolic;

// tanh, limited to the largest f32 below 1; f32 rounds it to 1 above 9.02. NaN stays NaN.
fn squashed(u: vec4<f32>) -> vec4<f32> {
    let a = hyperbolic(u);
    return select(a, sign(a) * 0.99999994, abs(a) >= vec4<f32>(1.0));
}

// ln(1 - tanh(u)^2), the logarithm of tanh's slope: 2 (ln 2 - u - softplus(-2u)), the same for u and -u.
fn log_slope(u: vec4<f32>) -> vec4<f32> {
    let size = abs(u);
    return 2.0 * (0.6931471806 - size - log(1.0 + exp(-2.0 * size)));
}

// Expectations over a normal distribution use 13 points, STEP deviations apart; the weights WEIGHT exp(-z^2 / 2) add up to 1.
const STEP = 0.7;
const PAIRS = 6u;
const WEIGHT = 0.27926057;

fn weight_at(z: f32) -> f32 {
    return WEIGHT * exp(-0.5 * z * z);
}

// Mean of ln(1 - tanh(u)^2), u = mean + deviation z.
fn mean_log_slope(mean: vec4<f32>, deviation: vec4<f32>) -> vec4<f32> {
    var sum = WEIGHT * log_slope(mean);
    for (var k = 1u; k <= PAIRS; k++) {
        let z = STEP * f32(k);
        sum += weight_at(z) * (log_slope(mean + deviation * z) + log_slope(mean - deviation * z));
    }
    return sum;
}

struct Slopes {
    mean: vec4<f32>,
    log_std: vec4<f32>,
}

// Derivatives of mean_log_slope: the expectations of -2 tanh(u) and of -2 tanh(u) deviation z.
fn slopes_of_mean(mean: vec4<f32>, deviation: vec4<f32>) -> Slopes {
    var slopes = Slopes(WEIGHT * hyperbolic(mean), vec4<f32>(0.0));
    for (var k = 1u; k <= PAIRS; k++) {
        let z = STEP * f32(k);
        let weight = weight_at(z);
        let above = hyperbolic(mean + deviation * z);
        let below = hyperbolic(mean - deviation * z);
        slopes.mean += weight * (above + below);
        slopes.log_std += weight * z * (above - below);
    }
    return Slopes(-2.0 * slopes.mean, -2.0 * deviation * slopes.log_std);
}
