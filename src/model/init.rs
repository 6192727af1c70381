//! Initial weights: orthogonal matrices, biases 0, LayerNorm gains 1.

use crate::nn::layout::TensorKind;
use crate::nn::{Activation, Layout};
use crate::random::Stream;

/// Gain of an actor's head: initial action probabilities are nearly uniform.
const ACTOR_HEAD: f64 = 0.01;
const CRITIC_HEAD: f64 = 1.0;

/// The flat parameter buffer of new networks; padding is 0. Orthogonal matrices as in Saxe et al. (arXiv 1312.6120) with the
/// gains of the MAPPO reference: sqrt 2 (ReLU) or 5/3 (tanh), a GRU's gates 1, actor head 0.01, critic head 1. Each tensor has its
/// own random stream, so that its values do not depend on other tensors' sizes.
#[must_use]
pub fn initial_weights(layout: &Layout, activation: Activation, seed: u64) -> Vec<f32> {
    let mut weights = vec![0f32; layout.params as usize * 4];
    for (index, tensor) in layout.tensors.iter().enumerate() {
        let [rows, columns] = tensor.shape;
        let gain = match tensor.kind {
            TensorKind::Zero => continue,
            TensorKind::One => {
                weights[tensor.first..tensor.first + columns].fill(1.0);
                continue;
            }
            TensorKind::Hidden => activation.gain(),
            TensorKind::Gates => 1.0,
            TensorKind::ActorHead => ACTOR_HEAD,
            TensorKind::CriticHead => CRITIC_HEAD,
        };
        let matrix = orthogonal(rows, columns, &mut Stream::new(seed, 1000 + index as u32));
        for (row, values) in matrix.chunks_exact(columns).enumerate() {
            let start = tensor.first + row * tensor.stride;
            for (weight, value) in weights[start..start + columns].iter_mut().zip(values) {
                *weight = (gain * value) as f32;
            }
        }
    }
    weights
}

/// A random `[rows][columns]` matrix whose shorter side is orthonormal, by Gram-Schmidt, twice for accuracy.
fn orthogonal(rows: usize, columns: usize, stream: &mut Stream) -> Vec<f64> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| stream.normal()).collect();
        for _ in 0..2 {
            for other in &basis {
                let projection: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(a, b)| *a -= projection * b);
            }
        }
        let norm = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        // Redraws a vector in the span of the others (probability 0).
        if norm > 1e-9 {
            vector.iter_mut().for_each(|a| *a /= norm);
            basis.push(vector);
        }
    }
    let mut matrix = vec![0.0; rows * columns];
    for (i, vector) in basis.iter().enumerate() {
        for (j, value) in vector.iter().enumerate() {
            let at = if rows <= columns { i * columns + j } else { j * columns + i };
            matrix[at] = *value;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Shape, Sharing};

    #[test]
    fn matrices_are_orthogonal_with_their_gains() {
        let shape = Shape {
            agents: 2,
            obs_dim: 5,
            actions: 3,
            hidden: vec![13, 8],
            sharing: Sharing::Separate,
            chunk: 5,
            ..Shape::default()
        };
        let layout = Layout::new(&shape).unwrap();
        let weights = initial_weights(&layout, Activation::Tanh, 3);
        for tensor in &layout.tensors {
            let at =
                |row: usize, column: usize| f64::from(weights[tensor.first + row * tensor.stride + column]);
            let [rows, columns] = tensor.shape;
            let gain = match tensor.kind {
                TensorKind::Zero => {
                    assert!((0..columns).all(|c| at(0, c) == 0.0));
                    continue;
                }
                TensorKind::One => {
                    assert!((0..columns).all(|c| at(0, c) == 1.0));
                    continue;
                }
                TensorKind::Hidden => 5.0 / 3.0,
                TensorKind::Gates => 1.0,
                TensorKind::ActorHead => 0.01,
                TensorKind::CriticHead => 1.0,
            };
            let (short, long) = (rows.min(columns), rows.max(columns));
            let entry = |i: usize, k: usize| if rows <= columns { at(i, k) } else { at(k, i) };
            for i in 0..short {
                for j in 0..short {
                    let product: f64 = (0..long).map(|k| entry(i, k) * entry(j, k)).sum();
                    let expected = if i == j { gain * gain } else { 0.0 };
                    assert!((product - expected).abs() < 1e-6, "{} {i} {j}: {product}", tensor.name);
                }
            }
        }
        let again = initial_weights(&layout, Activation::Tanh, 3);
        assert_eq!(weights, again);
        assert_ne!(weights, initial_weights(&layout, Activation::Tanh, 4));
        let separate: Vec<_> = layout.tensors.iter().filter(|t| t.name.ends_with("1.weight")).collect();
        assert_ne!(
            weights[separate[0].first], weights[separate[1].first],
            "agents' networks differ initially"
        );
    }
}
