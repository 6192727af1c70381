//! Offsets of layers in the parameter, activation and gradient buffers, and loop counts that follow from them.

use super::super::shape::{MAX_LAYERS, Shape};
use super::device::{AFTER_CELL, GATES_OF_INPUT, GATES_OF_STATE, NetworkStack, ORDINARY};
use crate::gpu::round_up;

/// Rows taken so far in the buffers that both stacks share.
#[derive(Default)]
pub(super) struct Cursor {
    pub(super) acts: u32,
    pub(super) grads: u32,
    pub(super) layer_norm_stats: u32,
}

/// Most loop iterations of one invocation of the kernels, with register tiles of `columns` columns and `step` inputs an
/// iteration.
pub(super) fn loop_iterations(stacks: &[NetworkStack; 2], shape: &Shape, columns: u32, step: u32) -> u64 {
    let steps = u64::from(shape.chunk.max(1));
    // A GRU reads, computes and stores its state entry by entry, and stores it once more for each of four environments whose
    // episodes are truncated. The iterations of the surrounding loops are added.
    let cell = 7 * u64::from(shape.memory()) + if shape.recurrent() { MAX_LAYERS as u64 + 5 } else { 0 };
    let of_stack = |stack: &NetworkStack| -> u64 {
        let layers = &stack.layer[..stack.layers as usize];
        let iterations = layers.iter().map(|layer| {
            let [inputs, outputs] = [layer.inputs, layer.outputs].map(u64::from);
            let (columns, step) = (u64::from(columns), u64::from(step));
            let forward = outputs.div_ceil(columns) * (inputs.div_ceil(step) + 1);
            let backward = inputs.div_ceil(columns) * (outputs.div_ceil(step) + 1) + inputs;
            forward.max(backward)
        });
        steps * (iterations.sum::<u64>() + cell)
    };
    stacks.iter().map(of_stack).max().unwrap_or(0)
}

/// Sets the layers of a stack and returns the vec4s of one network's parameters and of its working weights.
pub(super) fn lay_out_stack(
    stack: &mut NetworkStack,
    inputs: u32,
    outputs: u32,
    shape: &Shape,
    biases: u32,
    cursor: &mut Cursor,
) -> [u32; 2] {
    let widths = widths(inputs, outputs, shape);
    stack.layers = widths.len() as u32;
    let mut offset = 0;
    let mut take = |vec4s: u32| {
        let first = offset;
        offset += vec4s;
        first
    };
    for (index, (inputs, outputs, kind)) in widths.iter().copied().enumerate() {
        // Kernels read whole tiles: up to 32 columns, and inputs eight at a time.
        let (padded_inputs, padded_outputs) = (round_up(inputs, 16), round_up(outputs, 32));
        let layer = &mut stack.layer[index];
        layer.inputs = inputs;
        layer.outputs = outputs;
        layer.learnt = outputs;
        layer.kind = kind;
        layer.stride = padded_outputs / 4;
        layer.gain = take(padded_inputs / 4);
        layer.offset = take(padded_inputs / 4);
        layer.weights = take(padded_inputs * layer.stride);
        layer.bias = take(layer.stride * if index == 0 { biases } else { 1 });
        let normed = if index == 0 { shape.input_norm } else { shape.hidden_norm };
        layer.norm = u32::from(normed && kind != GATES_OF_STATE);
        if layer.norm == 1 {
            layer.layer_norm_stats = cursor.layer_norm_stats;
            cursor.layer_norm_stats += 2;
        }
        if index > 0 {
            layer.input = cursor.acts;
            cursor.acts += inputs;
            layer.product = layer.input;
            if matches!(kind, ORDINARY | GATES_OF_INPUT) && !shape.activation.invertible() {
                layer.product = cursor.acts;
                cursor.acts += inputs;
            }
        }
        layer.grad = cursor.grads;
        // The input's and the state's gradients of the reset and update gates are equal and share rows: the candidate's
        // gradient for the input lies before them, the one for the state after them.
        cursor.grads += if kind == GATES_OF_INPUT { inputs } else { outputs };
        if kind == GATES_OF_STATE {
            layer.output = cursor.acts + inputs;
            cursor.acts += inputs + outputs;
            // The gradient of the state follows the gates'.
            layer.below = cursor.grads;
            cursor.grads += inputs;
        }
    }
    for index in 0..widths.len() {
        let above = widths.get(index + 1).map(|_| stack.layer[index + 1]);
        let below = index.checked_sub(1).map(|below| stack.layer[below]);
        let layer = &mut stack.layer[index];
        match (layer.kind, above, below) {
            (GATES_OF_INPUT, Some(above), Some(below)) => {
                layer.output = above.output - layer.inputs;
                layer.below = below.grad;
            }
            (GATES_OF_STATE, ..) => {}
            (AFTER_CELL, _, Some(below)) => layer.below = below.below,
            (_, above, below) => {
                layer.output = above.map_or(0, |above| above.input);
                layer.made_from = above.map_or(0, |above| above.product);
                layer.below = below.map_or(0, |below| below.grad);
            }
        }
    }
    let params = offset;
    for layer in &mut stack.layer[1..widths.len()] {
        layer.transposed = offset;
        layer.transposed_stride = round_up(layer.inputs, 32) / 4;
        offset += round_up(layer.outputs, 16) * layer.transposed_stride;
    }
    [params, offset]
}

/// Inputs, outputs and kind of every layer.
fn widths(inputs: u32, outputs: u32, shape: &Shape) -> Vec<(u32, u32, u32)> {
    let mut layers = Vec::new();
    let mut width = inputs;
    for next in &shape.hidden {
        layers.push((width, *next, ORDINARY));
        width = *next;
    }
    if shape.recurrent() {
        layers.push((width, 3 * width, GATES_OF_INPUT));
        layers.push((width, 3 * width, GATES_OF_STATE));
    }
    layers.push((width, outputs, if shape.recurrent() { AFTER_CELL } else { ORDINARY }));
    layers
}
