//! Matrices and activations of less than 32 bits.

use onnx_rs::ast::{DataType, OpType};

use super::builder::Builder;
use super::calibration::Ranges;
use super::network::Matrix;
use super::safetensors::halves;
use crate::Result;

/// Largest weight in int8. CPUs without VNNI add products of two pairs of 8 bits in 16 bits, which saturate: 2 x 255 x 64 does not.
/// With 127, ONNX Runtime gave logits on such a CPU that were ten times as far off.
const LARGEST: f32 = 64.0;

/// Representation of the matrices.
pub(super) enum Storage {
    F32,
    F16,
    Int8(Ranges),
}

impl Storage {
    pub fn name(&self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8(_) => "int8",
        }
    }

    /// Adds a tensor of weights and what makes f32 of it; returns the name of the f32 tensor. `dimensions` end with the matrix's, and
    /// dimension 1 of both ranks in use, `[inputs][outputs]` and `[1][outputs][inputs]`, is that of the outputs.
    pub fn weights(
        &self,
        builder: &mut Builder,
        name: &str,
        matrix: &Matrix,
        transposed: bool,
    ) -> Result<String> {
        let Matrix { inputs, outputs, .. } = *matrix;
        let places: Vec<usize> = match transposed {
            false => (0..inputs * outputs).collect(),
            true => (0..outputs * inputs).map(|at| at % inputs * outputs + at / inputs).collect(),
        };
        let dimensions = if transposed { vec![1, outputs, inputs] } else { vec![inputs, outputs] };
        let values: Vec<f32> = places.iter().map(|at| matrix.values[*at]).collect();
        match self {
            Self::F32 => Ok(builder.floats(name, &dimensions, &values)),
            Self::F16 => {
                let bytes = halves(name, &values)?;
                let stored = builder.constant(format!("{name}.f16"), &dimensions, DataType::Float16, bytes);
                Ok(builder.node_with(OpType::Cast, name, &[&stored], &[("to", DataType::Float as i64)]))
            }
            Self::Int8(_) => {
                let scales = scales(matrix);
                let quantized = |at: &usize| {
                    let scaled = matrix.values[*at] / scales[at % outputs];
                    (scaled.round_ties_even().clamp(-LARGEST, LARGEST) as i8).cast_unsigned()
                };
                let bytes = places.iter().map(quantized).collect();
                let stored = builder.constant(format!("{name}.int8"), &dimensions, DataType::Int8, bytes);
                let scale = builder.floats(format!("{name}.scale"), &[outputs], &scales);
                let zeros = vec![0; outputs];
                let zero = builder.constant(format!("{name}.zero_point"), &[outputs], DataType::Int8, zeros);
                // Axis 1 is the default.
                Ok(builder.node(OpType::DequantizeLinear, name, &[&stored, &scale, &zero]))
            }
        }
    }

    /// Quantises the input of a layer to int8 and back, where matrices are int8.
    pub fn input(&self, builder: &mut Builder, layer: &str, tensor: String) -> String {
        let Self::Int8(ranges) = self else { return tensor };
        let [low, high] = ranges.get(layer).copied().unwrap_or([0.0; 2]);
        let width = high - low;
        let scale = if width > 0.0 { width / 255.0 } else { 1.0 };
        let zero = (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        let scale = builder.scalar(&format!("{layer}.input.scale"), scale);
        let zero = vec![zero.cast_unsigned()];
        let zero = builder.constant(format!("{layer}.input.zero_point"), &[], DataType::Int8, zero);
        let inputs = [tensor.as_str(), &scale, &zero];
        let quantized = builder.node(OpType::QuantizeLinear, format!("{layer}.input.int8"), &inputs);
        let inputs = [quantized.as_str(), &scale, &zero];
        builder.node(OpType::DequantizeLinear, format!("{layer}.input.f32"), &inputs)
    }
}

/// The scale of every output's weights: the largest becomes [`LARGEST`].
fn scales(matrix: &Matrix) -> Vec<f32> {
    let mut largest = vec![0f32; matrix.outputs];
    for row in matrix.values.chunks_exact(matrix.outputs) {
        largest.iter_mut().zip(row).for_each(|(largest, weight)| *largest = largest.max(weight.abs()));
    }
    largest.iter().map(|largest| if *largest > 0.0 { largest / LARGEST } else { 1.0 }).collect()
}
