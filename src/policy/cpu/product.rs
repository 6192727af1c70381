//! Products of a vector and a matrix, in a form that the compiler vectorises. The order of sums does not depend on the width of the
//! CPU's vectors, and products are not fused with sums: every CPU gives the same bits.

/// Columns of a tile of weights. Rows are padded to multiples of this.
pub(super) const COLUMNS: usize = 32;

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

/// Weights `[input][column]`, whose rows have whole tiles, in the order in which [`product`] reads them: `[tile][input][column]`.
pub(super) fn packed(weights: &[f32], stride: usize) -> Vec<f32> {
    let tile =
        |tile: usize| weights.chunks_exact(stride).flat_map(move |row| &row[tile * COLUMNS..][..COLUMNS]);
    (0..stride / COLUMNS).flat_map(tile).copied().collect()
}

/// `output[c] = bias[c] + sum over k of input[k] weights[k][c]` for the first `outputs` columns. The weights are [`packed`]; `bias` and
/// `output` have whole tiles.
pub(super) fn product(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the instructions.
        return unsafe { with_avx2(input, weights, bias, outputs, output) };
    }
    tiles(input, weights, bias, outputs, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    tiles(input, weights, bias, outputs, output);
}

#[inline(always)]
fn tiles(input: &[f32], weights: &[f32], bias: &[f32], outputs: usize, output: &mut [f32]) {
    let tiles = weights.chunks_exact(input.len() * COLUMNS).zip(bias.as_chunks::<COLUMNS>().0);
    let tiles = tiles.zip(output.as_chunks_mut::<COLUMNS>().0).take(outputs.div_ceil(COLUMNS));
    for (index, ((weights, bias), output)) in tiles.enumerate() {
        // Heads are narrow.
        match outputs - index * COLUMNS {
            0..=8 => tile::<8>(input, weights, bias, output),
            9..=16 => tile::<16>(input, weights, bias, output),
            _ => tile::<COLUMNS>(input, weights, bias, output),
        }
    }
}

/// The first N columns of a tile, whose sums stay in registers.
///
/// Loops over indices, because a build without link-time optimisation may leave an iterator's closures as calls: ten times as slow.
#[inline(always)]
#[expect(clippy::manual_memcpy, reason = "copies between slices are calls too")]
fn tile<const N: usize>(input: &[f32], weights: &[f32], bias: &[f32; COLUMNS], output: &mut [f32; COLUMNS]) {
    const { assert!(N <= COLUMNS) };
    let rows = weights.as_chunks::<COLUMNS>().0;
    let mut sums = [0f32; N];
    for c in 0..N {
        sums[c] = bias[c];
    }
    for k in 0..input.len().min(rows.len()) {
        let (value, row) = (input[k], &rows[k]);
        for c in 0..N {
            sums[c] += value * row[c];
        }
    }
    for c in 0..N {
        output[c] = sums[c];
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
            let tiled = packed(&weights, stride);
            product(&input, &tiled, &bias, outputs, &mut output);
            let mut plain = vec![f32::NAN; stride];
            tiles(&input, &tiled, &bias, outputs, &mut plain);
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
