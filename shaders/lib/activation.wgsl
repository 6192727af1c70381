// Activation functions and their derivatives, for four rows at once.

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(-x));
}

// The normal distribution function, with formula 7.1.26 of Abramowitz and Stegun for the error function (absolute error 1.5e-7).
fn gauss(x: vec4<f32>) -> vec4<f32> {
    let z = abs(x) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let tail = 0.5 * series * exp(-z * z);
    return select(1.0 - tail, tail, x < vec4<f32>(0.0));
}

@if(relu)
fn activate(x: vec4<f32>) -> vec4<f32> {
    // Not max(x, 0), which may turn NaN into 0.
    return select(x, vec4<f32>(0.0), x < vec4<f32>(0.0));
}

// `slope` is the derivative, computed from the function's value (relu, tanh) or from its argument (gelu, silu).
@if(relu)
fn slope(y: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(1.0), y > vec4<f32>(0.0));
}

fn hyperbolic(x: vec4<f32>) -> vec4<f32> {
    // Some drivers return NaN for tanh of large arguments; above 9.02 the result is 1 in f32 anyway. NaN arguments must give NaN, which
    // clamp does not guarantee.
    let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
    let bounded = tanh(clamp(x, vec4<f32>(-10.0), vec4<f32>(10.0)));
    return select(bounded, x, bits > vec4<u32>(0x7f800000u));
}

@if(tanh)
fn activate(x: vec4<f32>) -> vec4<f32> {
    return hyperbolic(x);
}

@if(tanh)
fn slope(y: vec4<f32>) -> vec4<f32> {
    return 1.0 - y * y;
}

@if(gelu)
fn activate(x: vec4<f32>) -> vec4<f32> {
    return x * gauss(x);
}

@if(gelu)
fn slope(x: vec4<f32>) -> vec4<f32> {
    return gauss(x) + x * 0.39894228 * exp(-0.5 * x * x);
}

@if(silu)
fn activate(x: vec4<f32>) -> vec4<f32> {
    return x * sigmoid(x);
}

@if(silu)
fn slope(x: vec4<f32>) -> vec4<f32> {
    let s = sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}
