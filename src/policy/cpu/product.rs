//! Products of a vector and a matrix, in a form that the compiler vectorises. The order of sums does not depend on the width of the
//! CPU's vectors, and products are not fused with sums: every CPU gives the same bits.

/// Rows of weights are padded to multiples of this.
pub(super) const COLUMNS: usize = 32;

/// Rows of weights whose products are added to a sum at a time.
const ROWS: usize = 8;

/// Partial sums of [`sum`] and [`sum_of_squares`].
const LANES: usize = 16;

/// The sum of values, in [`LANES`] partial sums.
pub(super) fn sum(values: &[f32]) -> f32 {
    accumulate(values, |value| value)
}

/// The sum of their squares.
pub(super) fn sum_of_squares(values: &[f32]) -> f32 {
    accumulate(values, |value| value * value)
}

fn accumulate(values: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in whole {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += function(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += function(*value);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// `output[c] = bias[c] + sum over k of input[k] weights[k][c]` for the first `outputs` columns; `bias`, `output` and the rows of
/// `weights` are padded to whole tiles.
pub(super) fn product(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the instructions.
            return unsafe { with_avx512(input, weights, bias, outputs, output) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { with_avx2(input, weights, bias, outputs, output) };
        }
    }
    rows(input, weights, bias, outputs, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn with_avx512(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    rows(input, weights, bias, outputs, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    rows(input, weights, bias, outputs, output);
}

/// Adds the products of a few rows at a time to all columns: the rows are read in order, and a sum is loaded and stored once for them all.
#[inline(always)]
fn rows(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    let stride = bias.len();
    let columns = outputs.next_multiple_of(LANES).min(stride);
    let output = &mut output[..columns];
    output.copy_from_slice(&bias[..columns]);
    let (whole, rest) = input.as_chunks::<ROWS>();
    let (of_whole, of_rest) = weights.split_at(whole.len() * ROWS * stride);
    for (values, weights) in whole.iter().zip(of_whole.chunks_exact(ROWS * stride)) {
        add::<ROWS>(values, weights, stride, output);
    }
    for (value, weights) in rest.iter().zip(of_rest.chunks_exact(stride)) {
        add::<1>(&[*value], weights, stride, output);
    }
}

#[inline(always)]
fn add<const N: usize>(values: &[f32; N], weights: &[f32], stride: usize, output: &mut [f32]) {
    // Of equal lengths, so that the loop needs no bounds checks.
    let rows: [&[f32]; N] = std::array::from_fn(|row| &weights[row * stride..][..output.len()]);
    for column in 0..output.len() {
        let mut sum = output[column];
        for row in 0..N {
            sum += values[row] * rows[row][column];
        }
        output[column] = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_gives_the_product() {
        let mut random = crate::random::Stream::new(1, 2);
        let mut next = || random.normal() as f32;
        for (inputs, outputs) in [(1, 1), (3, 7), (18, 64), (17, 33), (5, 9), (64, 3), (40, 48), (2, 100)] {
            let stride = usize::next_multiple_of(outputs, COLUMNS);
            let input: Vec<f32> = (0..inputs).map(|_| next()).collect();
            let weights: Vec<f32> = (0..inputs * stride).map(|_| next()).collect();
            let bias: Vec<f32> = (0..stride).map(|_| next()).collect();
            let mut output = vec![f32::NAN; stride];
            product(&input, &weights, &bias, outputs, &mut output);
            let mut plain = vec![f32::NAN; stride];
            rows(&input, &weights, &bias, outputs, &mut plain);
            for c in 0..outputs {
                let terms =
                    input.iter().enumerate().map(|(k, x)| f64::from(*x) * f64::from(weights[k * stride + c]));
                let expected = f64::from(bias[c]) + terms.sum::<f64>();
                assert!((f64::from(output[c]) - expected).abs() < 1e-5, "{inputs}x{outputs} column {c}");
                assert_eq!(output[c].to_bits(), plain[c].to_bits(), "the same bits without wide vectors");
            }
        }
    }

    #[test]
    fn sums_take_every_value() {
        for length in [1usize, 2, 15, 16, 17, 31, 33, 200] {
            let values: Vec<f32> = (1..=length).map(|value| value as f32).collect();
            assert_eq!(sum(&values), (length * (length + 1) / 2) as f32);
            let squares: f32 = values.iter().map(|value| value * value).sum();
            assert!((sum_of_squares(&values) - squares).abs() <= 1e-6 * squares);
        }
    }
}
