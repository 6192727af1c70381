//! Activation functions as the kernels compute them (`shaders/lib/activation.wgsl`).

use crate::nn::Activation;

pub(in crate::policy) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(in crate::policy) fn hyperbolic(x: f32) -> f32 {
    x.tanh()
}

/// The normal distribution function, with formula 7.1.26 of Abramowitz and Stegun (absolute error 1.5e-7).
fn gauss(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * (-z * z).exp();
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Applies the function to every value.
pub(in crate::policy) fn activate(activation: Activation, values: &mut [f32]) {
    let each = |values: &mut [f32], function: fn(f32) -> f32| {
        values.iter_mut().for_each(|value| *value = function(*value));
    };
    match activation {
        // A comparison, because `max` would turn NaN into 0.
        Activation::Relu => {
            values.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value })
        }
        Activation::Tanh => each(values, hyperbolic),
        Activation::Gelu => each(values, |x| x * gauss(x)),
        Activation::Silu => each(values, |x| x * sigmoid(x)),
    }
}
