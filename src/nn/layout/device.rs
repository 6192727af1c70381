//! Structures that the kernels read: `#[repr(C)]` counterparts of `shaders/lib/network.wgsl`.

use super::super::shape::MAX_LAYERS;
pub(super) use crate::shaders::constants::network::{AFTER_CELL, ALL, ORDINARY, OWN, STATE};
/// Kinds of layers of a GRU.
pub use crate::shaders::constants::network::{GATES_OF_INPUT, GATES_OF_STATE};

/// One linear layer with the LayerNorm before it. Counterpart of `Layer` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Layer {
    /// Inputs of the layer.
    pub inputs: u32,
    /// Outputs of the layer.
    pub outputs: u32,
    /// vec4s between two rows of the weight matrix.
    pub stride: u32,
    /// First vec4 of the weights, from the start of the network.
    pub weights: u32,
    /// First vec4 of the bias.
    pub bias: u32,
    /// First vec4 of the LayerNorm's gain.
    pub gain: u32,
    /// First vec4 of the LayerNorm's offset.
    pub offset: u32,
    /// 1: there is a LayerNorm.
    pub norm: u32,
    /// First vec4 of the transposed weights, from the start of the network's working weights.
    pub transposed: u32,
    /// vec4s between two of their rows.
    pub transposed_stride: u32,
    /// First row of the inputs in the activation buffer; layer 0 reads the observations.
    pub input: u32,
    /// First row of the activation function's arguments; the row of its values where the derivative follows from these.
    pub product: u32,
    /// Row of the LayerNorm's mean; the row after it holds 1 / standard deviation.
    pub layer_norm_stats: u32,
    /// First row of the gradient with respect to the matrix product, in the gradient buffer.
    pub grad: u32,
    /// Outputs with learnt weights; the outputs after them equal their biases, whatever the input.
    pub learnt: u32,
    /// 0: linear, 1: a GRU's matrix of the input, 2: a GRU's matrix of the state, 3: the head after a GRU.
    pub kind: u32,
    /// First row of the outputs in the activation buffer; the head's outputs go to a buffer of their own.
    pub output: u32,
    /// First row of the activation function's arguments for these outputs.
    pub made_from: u32,
    /// First row of the gradient buffer for the gradient with respect to the layer below.
    pub below: u32,
    /// Padding to 16 bytes.
    pub pad: u32,
}

/// All actor networks, or all critic networks. Counterpart of `NetworkStack` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NetworkStack {
    /// Linear layers, the head included.
    pub layers: u32,
    /// First vec4 of the first network.
    pub params: u32,
    /// vec4s from one agent's network to the next; 0 when shared.
    pub net_stride: u32,
    /// First vec4 of the first network's working weights.
    pub working: u32,
    /// vec4s from one agent's working weights to the next; 0 when shared.
    pub working_stride: u32,
    /// Input of the first layer: 0: the agent's own observation, 1: all agents' observations, 2: the global state.
    pub input_kind: u32,
    /// 1: a bias per agent in the first layer.
    pub agent_bias: u32,
    /// Number of networks.
    pub nets: u32,
    /// The layers; those past `layers` are zero.
    pub layer: [Layer; MAX_LAYERS],
}

/// Rows of one dispatch. Counterpart of `Batch` in `shaders/lib/network.wgsl`. The parts are multiples of 16 bytes, the
/// alignment of structures in uniform buffers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Batch {
    /// First observation slot; in shuffled minibatches the first place in the order.
    pub first_slot: u32,
    /// Quads of rows of this dispatch.
    pub rows: u32,
    /// Quads of rows of the activation buffers.
    pub stride: u32,
    /// Agents of an environment.
    pub agents: u32,
    /// Environments / 4.
    pub quads: u32,
    /// Features of one agent's observation.
    pub obs_dim: u32,
    /// Rows of the activation buffer.
    pub acts: u32,
    /// Rows of the gradient buffer.
    pub grads: u32,
    /// First quad of the global states, which follow the observations in their buffer.
    pub first_state: u32,
    /// Features of the global state; 0 if critics do not read it.
    pub state_dim: u32,
    /// First vec4 of the order of the slots in `dones_and_masks` ([`crate::ppo::shuffle`]); 0: slots are consecutive.
    pub order: u32,
    /// 1: the gradient's partial sums begin with this batch; 0: its gradient is added to them.
    pub starts_sum: u32,
    /// For the forward pass, the backward pass and the loss.
    pub forward: ForwardPart,
    /// For networks with a GRU.
    pub recurrent: RecurrentPart,
    /// For the loss.
    pub loss: LossPart,
}

/// The part of a [`Batch`] for the forward pass, the backward pass and the loss.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ForwardPart {
    /// 0: both stacks, 1: critics only.
    pub first_stack: u32,
    /// 1: a backward pass follows, which reads the LayerNorms' statistics.
    pub keep: u32,
    /// First vec4 of the logits in the head buffer.
    pub head_actor: u32,
    /// First vec4 of the values in the head buffer.
    pub head_critic: u32,
}

/// The part of a [`Batch`] for networks with a GRU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RecurrentPart {
    /// Slots that an invocation iterates over.
    pub length: u32,
    /// Slots between two stored states.
    pub chunk: u32,
    /// Steps of the rollout.
    pub steps: u32,
    /// Slots of truncated episodes.
    pub truncations: u32,
    /// First quad of the flags, in `dones_and_masks`, of the episodes that ended before slot 0.
    pub endings: u32,
    /// 1: new states are stored for later dispatches.
    pub store_states: u32,
    /// Padding to 32 bytes.
    pub pad: [u32; 2],
}

/// The part of a [`Batch`] for the loss.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LossPart {
    /// Number of the micro-batch within the iteration.
    pub index: u32,
    /// Number of the minibatch within the rollout.
    pub minibatch: u32,
    /// HAPPO: the agent that learns, counted from 1; 0: all agents learn.
    pub agent_step: u32,
    /// HAPPO: 1: keep the log-probabilities of this agent's actions, 2: multiply the ratios to those kept into the factors of the
    /// agents after it; either way learn nothing. 0: learn.
    pub update_factors: u32,
}
