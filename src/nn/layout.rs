//! Where everything of the networks lies: parameters, activations, gradients. Pure arithmetic.

use super::shape::{CriticInput, MAX_LAYERS, Shape, Sharing};
use crate::gpu::round_up;
use crate::{Error, Result};

/// What a role sees, as the shaders number it: the agent's own observation.
const OWN: u32 = 0;
/// All agents' observations.
const ALL: u32 = 1;
/// The environment's own state.
const STATE: u32 = 2;

/// Kinds of layers, as the shaders number them.
const ORDINARY: u32 = 0;
/// What a GRU makes of its input: candidate, reset and update gate.
const GATES_OF_INPUT: u32 = 1;
/// What it makes of its state: reset gate, update gate, candidate.
const GATES_OF_STATE: u32 = 2;
/// The head after a GRU.
const AFTER_CELL: u32 = 3;

/// Most vec4s of the parameter buffer: 4 GiB, which also 32-bit byte offsets reach.
const MOST_PARAMS: u32 = (1 << 28) - 1;

/// One linear layer with the LayerNorm before it. Counterpart of `Layer` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Layer {
    /// Width of what enters.
    pub inputs: u32,
    /// Width of what leaves.
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
    /// Row of the activation buffer of what enters; layer 0 reads the observations.
    pub input: u32,
    /// Row of what the activation function made it from; the same row for functions that can be told from their value.
    pub product: u32,
    /// Row of the LayerNorm's mean; 1/deviation follows.
    pub moments: u32,
    /// Row of the gradient buffer for the matrix product.
    pub grad: u32,
    /// Outputs whose weights are learnt: those after them are their biases, whatever the input.
    pub learnt: u32,
    /// 0: ordinary, 1 and 2: a GRU's gates, of its input and of its state, 3: the head after a GRU.
    pub kind: u32,
    /// Row of the activation buffer of what leaves; the head's goes elsewhere.
    pub output: u32,
    /// Row of what the activation function makes that from.
    pub made_from: u32,
    /// Row of the gradient buffer where the gradient of what enters goes.
    pub below: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// All networks of one role (actors or critics). Counterpart of `NetworkStack` in `shaders/lib/network.wgsl`.
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
    /// What it sees: 0: the agent's own observation, 1: all agents', 2: the environment's own state.
    pub sees: u32,
    /// 1: a bias per agent in the first layer.
    pub agent_bias: u32,
    /// Networks of the role.
    pub nets: u32,
    /// The layers; those past `layers` are zero.
    pub layer: [Layer; MAX_LAYERS],
}

/// Rows of one dispatch. Counterpart of `Batch` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Batch {
    /// First observation slot.
    pub first_slot: u32,
    /// Quads of rows of this dispatch.
    pub rows: u32,
    /// Quads of rows the activation buffers have room for.
    pub stride: u32,
    /// Agents of an environment.
    pub agents: u32,
    /// Environments / 4.
    pub quads: u32,
    /// Features of one agent's observation.
    pub obs_dim: u32,
    /// 0: from the actors on, 1: critics only.
    pub first_role: u32,
    /// Where the logits go in the head buffer, in vec4s.
    pub head_actor: u32,
    /// Where the values go in the head buffer, in vec4s.
    pub head_critic: u32,
    /// Number of the micro-batch within the iteration.
    pub index: u32,
    /// 1: a backward pass follows.
    pub keep: u32,
    /// Rows of the activation buffer.
    pub acts: u32,
    /// Rows of the gradient buffer.
    pub grads: u32,
    /// Number of the minibatch within the rollout.
    pub minibatch: u32,
    /// With a GRU: slots that an invocation walks through one after the other.
    pub length: u32,
    /// With a GRU: slots between two of which the states stay.
    pub chunk: u32,
    /// With a GRU: steps of the rollout.
    pub steps: u32,
    /// With a GRU: slots of truncated episodes.
    pub truncations: u32,
    /// With a GRU: where it stands in the dones_and_masks which episodes ended before slot 0, in quads.
    pub endings: u32,
    /// With a GRU: 1: new states are kept for later dispatches.
    pub remember: u32,
    /// In turns: the number of the agent that learns, from 1; 0: all do.
    pub agent_step: u32,
    /// In turns: 1: nothing is learnt, the agent's ratios go into the factor of those after it.
    pub settle: u32,
    /// First quad of the environments' own states, which follow the observations in their buffer.
    pub first_state: u32,
    /// Numbers of an environment's own state; 0 if critics do not see it.
    pub state_dim: u32,
}

/// One network in the flat parameter buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkSlice {
    /// 0: actor, 1: critic.
    pub role: usize,
    /// The agent it belongs to; `None`: all.
    pub agent: Option<u32>,
    /// First vec4.
    pub first: u32,
    /// Number of vec4s.
    pub length: u32,
    /// First vec4 of its working weights.
    pub working: u32,
}

/// One named tensor in the flat parameter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// For instance `actor.1.weight` (shared) or `critic.agent2.0.norm.bias`.
    pub name: String,
    /// First f32.
    pub first: usize,
    /// Rows and columns that exist; `[1, n]` for vectors.
    pub shape: [usize; 2],
    /// f32s between two rows.
    pub stride: usize,
    /// What it is, which decides its initial values.
    pub kind: TensorKind,
}

/// Kinds of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// Weights `[inputs][outputs]` of a hidden layer.
    Hidden,
    /// Weights of a GRU's gates, `[inputs][3 * state]`: of its input candidate, reset, update; of its state reset, update,
    /// candidate.
    Gates,
    /// Weights of an actor's head.
    ActorHead,
    /// Weights of a critic's head.
    CriticHead,
    /// A bias, or a LayerNorm's offset: 0 at first.
    Zero,
    /// A LayerNorm's gain: 1 at first.
    One,
}

/// Everything about where things lie.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The shape it was made from.
    pub shape: Shape,
    /// Actors and critics.
    pub roles: [NetworkStack; 2],
    /// All networks, actors first.
    pub nets: Vec<NetworkSlice>,
    /// All tensors in the order of the parameter buffer.
    pub tensors: Vec<Tensor>,
    /// vec4s of the parameter buffer.
    pub params: u32,
    /// vec4s of the working weights.
    pub working: u32,
    /// Rows of the activation buffer; each is one quad per quad of rows.
    pub act_rows: u32,
    /// Rows of the gradient buffer.
    pub grad_rows: u32,
    /// Rows of the LayerNorms' means and deviations.
    pub moment_rows: u32,
}

#[derive(Default)]
struct Cursor {
    acts: u32,
    grads: u32,
    moments: u32,
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
        let mut roles = [NetworkStack::default(); 2];
        for (index, role) in roles.iter_mut().enumerate() {
            let (sees, inputs, outputs) = match (index, shape.critic_input) {
                (0, _) => (OWN, shape.obs_dim, shape.actions),
                (_, CriticInput::Own) => (OWN, shape.obs_dim, 1),
                (_, CriticInput::Joint) => (ALL, shape.obs_dim * shape.agents, 1),
                (_, CriticInput::State) => (STATE, shape.state_dim, 1),
            };
            let shared = shape.sharing == Sharing::Shared;
            let told_apart = shared && shape.agent_identity;
            let biases = if told_apart { shape.agents } else { 1 };
            let [length, working_length] = lay_out_role(role, inputs, outputs, shape, biases, &mut cursor);
            if index == 0 {
                let head = &mut role.layer[role.layers as usize - 1];
                head.learnt = head.outputs - shape.constants;
            }
            role.sees = sees;
            role.agent_bias = u32::from(told_apart && shape.agents > 1);
            role.params = params;
            role.net_stride = if shared { 0 } else { length };
            role.working = working;
            role.working_stride = if shared { 0 } else { working_length };
            role.nets = if shared { 1 } else { shape.agents };
            for copy in 0..role.nets {
                let agent = (!shared).then_some(copy);
                nets.push(NetworkSlice { role: index, agent, first: params, length, working });
                name_tensors(role, index, agent, params, biases, &mut tensors);
                // The working weights are the longer ones.
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
            roles,
            nets,
            tensors,
            params,
            working,
            act_rows: cursor.acts,
            grad_rows: cursor.grads,
            moment_rows: cursor.moments,
        })
    }

    /// The same for acting alone, a slot at a time.
    #[must_use]
    pub fn acting(&self) -> Self {
        let shape = Shape { chunk: self.shape.chunk.min(1), ..self.shape.clone() };
        Self { shape, ..self.clone() }
    }

    /// Row of the gradient buffer where the gradient at the head of `role` begins.
    #[must_use]
    pub fn head_gradient(&self, role: usize) -> u32 {
        let role = &self.roles[role];
        role.layer[role.layers as usize - 1].grad
    }

    /// Most loop turns of one invocation of the kernels, with register tiles of `columns` columns and `step` inputs a turn.
    #[must_use]
    pub fn loop_iterations(&self, columns: u32, step: u32) -> u64 {
        let biases = if self.shape.sharing == Sharing::Shared { u64::from(self.shape.agents) } else { 1 };
        let steps = u64::from(self.shape.chunk.max(1));
        // A GRU's state is taken up, made anew and kept, entry by entry, and once more for each of four environments that are
        // truncated; to which the turns of the loops around come.
        let cell = 7 * u64::from(self.shape.memory())
            + if self.shape.recurrent() { MAX_LAYERS as u64 + 5 } else { 0 };
        let stack = |role: &NetworkStack| -> u64 {
            let layers = &role.layer[..role.layers as usize];
            let turns = layers.iter().map(|layer| {
                let [inputs, outputs] = [layer.inputs, layer.outputs].map(u64::from);
                let (columns, step) = (u64::from(columns), u64::from(step));
                let there = outputs.div_ceil(columns) * (inputs.div_ceil(step) + 1);
                let back = inputs.div_ceil(columns) * (outputs.div_ceil(step) + 1) + inputs;
                there.max(back)
            });
            steps * (turns.sum::<u64>() + cell)
        };
        // nn/unfold adds the biases of all agents up for every four outputs.
        let unfold = self.roles.iter().map(|role| u64::from(role.layer[0].stride) * (biases + 1));
        self.roles.iter().map(stack).chain(unfold).max().unwrap_or(0)
    }

    /// Parameters that exist, padding not counted.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| (tensor.shape[0] * tensor.shape[1]) as u64).sum()
    }
}

/// Fills in a role's layers and returns the vec4s of one of its networks, and of its working weights.
fn lay_out_role(
    role: &mut NetworkStack,
    inputs: u32,
    outputs: u32,
    shape: &Shape,
    biases: u32,
    cursor: &mut Cursor,
) -> [u32; 2] {
    let widths = widths(inputs, outputs, shape);
    role.layers = widths.len() as u32;
    let mut offset = 0;
    let mut take = |vec4s: u32| {
        let first = offset;
        offset += vec4s;
        first
    };
    for (index, (inputs, outputs, kind)) in widths.iter().copied().enumerate() {
        // Kernels read whole tiles: up to 32 columns, and inputs eight at a time.
        let (padded_inputs, padded_outputs) = (round_up(inputs, 16), round_up(outputs, 32));
        let layer = &mut role.layer[index];
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
            layer.moments = cursor.moments;
            cursor.moments += 2;
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
        // The gates of input and state share rows of two gates: what the one has of the candidate comes before them, what
        // the other has of it after them.
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
        let above = widths.get(index + 1).map(|_| role.layer[index + 1]);
        let below = index.checked_sub(1).map(|below| role.layer[below]);
        let layer = &mut role.layer[index];
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
    for layer in &mut role.layer[1..widths.len()] {
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

fn name_tensors(
    role: &NetworkStack,
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
    for l in 0..role.layers {
        let layer = role.layer[l as usize];
        let weight = match (layer.kind, l + 1 == role.layers) {
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

#[cfg(test)]
mod tests;
