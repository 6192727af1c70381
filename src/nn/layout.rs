//! Offsets of the networks' parameters, activations and gradients in their buffers. Pure arithmetic: `device` holds the
//! structures that kernels read, `offsets` computes them, `tensors` names the parts of the parameter buffer.

mod device;
mod offsets;
mod tensors;

pub(super) use device::Layer;
pub use device::{Batch, ForwardPart, LossPart, NetworkStack, RecurrentPart};
pub use tensors::{Tensor, TensorKind};

use device::{ALL, OWN, STATE};
pub use device::{GATES_OF_INPUT, GATES_OF_STATE};
use offsets::{Cursor, lay_out_stack};
use tensors::name_tensors;

use super::shape::{CriticInput, Shape, Sharing};
use crate::{Error, Result};

/// Most vec4s of the parameter buffer: 4 GiB, the range of 32-bit byte offsets.
const MOST_PARAMS: u32 = (1 << 28) - 1;

/// One network in the flat parameter buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkSlice {
    /// 0: actor, 1: critic.
    pub stack: usize,
    /// The agent it belongs to; `None`: all.
    pub agent: Option<u32>,
    /// First vec4.
    pub first: u32,
    /// Number of vec4s.
    pub length: u32,
    /// First vec4 of its working weights.
    pub working: u32,
}

/// Offsets of all networks, tensors and rows.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The shape it was made from.
    pub shape: Shape,
    /// Actors and critics.
    pub stacks: [NetworkStack; 2],
    /// All networks, actors first.
    pub nets: Vec<NetworkSlice>,
    /// All tensors in the order of the parameter buffer.
    pub tensors: Vec<Tensor>,
    /// vec4s of the parameter buffer.
    pub params: u32,
    /// vec4s of the working weights.
    pub working: u32,
    /// Rows of the activation buffer; a row holds one feature of every quad of rows.
    pub act_rows: u32,
    /// Rows of the gradient buffer.
    pub grad_rows: u32,
    /// Rows of the LayerNorms' means and inverse standard deviations.
    pub layer_norm_stats_rows: u32,
}

impl Layout {
    /// Lays out all networks of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes out of range.
    pub fn new(shape: &Shape) -> Result<Self> {
        shape.check()?;
        let mut cursor = Cursor::default();
        let (mut params, mut working) = (0u32, 0u32);
        let mut nets = Vec::new();
        let mut tensors = Vec::new();
        let mut stacks = [NetworkStack::default(); 2];
        for (index, stack) in stacks.iter_mut().enumerate() {
            let (input_kind, inputs, outputs) = match (index, shape.critic_input) {
                (0, _) => (OWN, shape.obs_dim, shape.actions),
                (_, CriticInput::Own) => (OWN, shape.obs_dim, 1),
                (_, CriticInput::Joint) => (ALL, shape.obs_dim * shape.agents, 1),
                (_, CriticInput::State) => (STATE, shape.state_dim, 1),
            };
            let shared = shape.sharing == Sharing::Shared;
            let identified = shared && shape.agent_identity;
            let biases = if identified { shape.agents } else { 1 };
            let [length, working_length] = lay_out_stack(stack, inputs, outputs, shape, biases, &mut cursor);
            if index == 0 {
                let head = &mut stack.layer[stack.layers as usize - 1];
                head.learnt = head.outputs - shape.constants;
            }
            stack.input_kind = input_kind;
            stack.agent_bias = u32::from(identified && shape.agents > 1);
            stack.params = params;
            stack.net_stride = if shared { 0 } else { length };
            stack.working = working;
            stack.working_stride = if shared { 0 } else { working_length };
            stack.nets = if shared { 1 } else { shape.agents };
            for copy in 0..stack.nets {
                let agent = (!shared).then_some(copy);
                nets.push(NetworkSlice { stack: index, agent, first: params, length, working });
                name_tensors(stack, index, agent, params, biases, &mut tensors);
                // Working weights are longer than parameters, so this bounds both.
                working = working
                    .checked_add(working_length)
                    .filter(|total| *total <= MOST_PARAMS)
                    .ok_or_else(|| {
                        let most = u64::from(MOST_PARAMS) * 4;
                        Error::config(
                            "hidden",
                            format!("the networks would have more than {most} working weights"),
                        )
                    })?;
                params += length;
            }
        }
        Ok(Self {
            shape: shape.clone(),
            stacks,
            nets,
            tensors,
            params,
            working,
            act_rows: cursor.acts,
            grad_rows: cursor.grads,
            layer_norm_stats_rows: cursor.layer_norm_stats,
        })
    }

    /// This layout for acting alone, one slot at a time.
    #[must_use]
    pub fn acting(&self) -> Self {
        let shape = Shape { chunk: self.shape.chunk.min(1), ..self.shape.clone() };
        Self { shape, ..self.clone() }
    }

    /// First row of the gradient buffer for the head's gradient: 0: of the actors, 1: of the critics.
    #[must_use]
    pub fn head_gradient(&self, stack: usize) -> u32 {
        let stack = &self.stacks[stack];
        stack.layer[stack.layers as usize - 1].grad
    }

    /// Most loop iterations of one invocation of the kernels, with register tiles of `columns` columns and `step` inputs an
    /// iteration.
    #[must_use]
    pub fn loop_iterations(&self, columns: u32, step: u32) -> u64 {
        offsets::loop_iterations(&self.stacks, &self.shape, columns, step)
    }

    /// Multiply-adds of a row in the forward pass of an actor (0) or a critic (1).
    #[must_use]
    pub fn multiply_adds(&self, stack: usize) -> u64 {
        let stack = &self.stacks[stack];
        let layers = &stack.layer[..stack.layers as usize];
        layers.iter().map(|layer| u64::from(layer.inputs) * u64::from(layer.outputs)).sum()
    }

    /// Number of parameters, without padding.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| (tensor.shape[0] * tensor.shape[1]) as u64).sum()
    }
}

#[cfg(test)]
mod tests;
