//! Names and shapes of the tensors in the parameter buffer.

use super::device::{AFTER_CELL, GATES_OF_INPUT, GATES_OF_STATE, NetworkStack};

/// One named tensor in the flat parameter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// For instance `actor.1.weight` (shared) or `critic.agent2.0.norm.bias`.
    pub name: String,
    /// First f32.
    pub first: usize,
    /// Rows and columns without padding; `[1, n]` for vectors.
    pub shape: [usize; 2],
    /// f32s between two rows.
    pub stride: usize,
    /// Kind of the tensor, which decides its initial values.
    pub kind: TensorKind,
}

/// Kinds of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// Weights `[inputs][outputs]` of a hidden layer.
    Hidden,
    /// A GRU's weights `[inputs][3 * state]`: of the input (candidate, reset, update), or of the state (reset, update, candidate).
    Gates,
    /// Weights of an actor's head.
    ActorHead,
    /// Weights of a critic's head.
    CriticHead,
    /// A bias or a LayerNorm's offset: initially 0.
    Zero,
    /// A LayerNorm's gain: initially 1.
    One,
}

pub(super) fn name_tensors(
    stack: &NetworkStack,
    index: usize,
    agent: Option<u32>,
    first: u32,
    biases: u32,
    tensors: &mut Vec<Tensor>,
) {
    let mut prefix = ["actor", "critic"][index].to_string();
    if let Some(agent) = agent {
        prefix += &format!(".agent{agent}");
    }
    for l in 0..stack.layers {
        let layer = stack.layer[l as usize];
        let weight = match (layer.kind, l + 1 == stack.layers) {
            (GATES_OF_INPUT | GATES_OF_STATE, _) => TensorKind::Gates,
            (_, true) if index == 0 => TensorKind::ActorHead,
            (_, true) => TensorKind::CriticHead,
            (_, false) => TensorKind::Hidden,
        };
        // The head has the same name with a GRU as without one.
        let number = if layer.kind == AFTER_CELL { l - 2 } else { l };
        let label = |name: &str| match (layer.kind, name.starts_with("norm")) {
            (GATES_OF_INPUT, true) => format!("{prefix}.gru.{name}"),
            (GATES_OF_INPUT, false) => format!("{prefix}.gru.input.{name}"),
            (GATES_OF_STATE, _) => format!("{prefix}.gru.state.{name}"),
            _ => format!("{prefix}.{number}.{name}"),
        };
        let rows = if l == 0 { biases } else { 1 };
        let stride = layer.stride as usize * 4;
        let mut push = |name: &str, at: u32, shape: [u32; 2], stride: usize, kind: TensorKind| {
            tensors.push(Tensor {
                name: label(name),
                first: (first + at) as usize * 4,
                shape: shape.map(|size| size as usize),
                stride,
                kind,
            });
        };
        if layer.norm == 1 {
            push("norm.weight", layer.gain, [1, layer.inputs], 0, TensorKind::One);
            push("norm.bias", layer.offset, [1, layer.inputs], 0, TensorKind::Zero);
        }
        push("weight", layer.weights, [layer.inputs, layer.learnt], stride, weight);
        push("bias", layer.bias, [rows, layer.learnt], stride, TensorKind::Zero);
        if layer.learnt < layer.outputs {
            tensors.push(Tensor {
                name: format!("{prefix}.log_std"),
                first: (first + layer.bias) as usize * 4 + layer.learnt as usize,
                shape: [1, (layer.outputs - layer.learnt) as usize],
                stride: 0,
                kind: TensorKind::Zero,
            });
        }
    }
}
