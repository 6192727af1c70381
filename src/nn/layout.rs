//! Where everything of the networks lies: parameters, activations, gradients. Pure arithmetic.

use serde::{Deserialize, Serialize};

use crate::gpu::round_up;
use crate::{Error, Result};

/// Most linear layers of a stack: four hidden and the head. `MAX_LAYERS` of `shaders/lib/network.wgsl`.
pub const MAX_LAYERS: usize = 5;

/// Most vec4s of the parameter buffer: 4 GiB, which also 32-bit byte offsets reach.
const MOST_PARAMS: u32 = (1 << 28) - 1;

/// Nonlinearity of the hidden layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0)
    #[default]
    Relu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    /// Gain of the orthogonal initialisation that keeps the variance (`torch.nn.init.calculate_gain`).
    #[must_use]
    pub fn gain(self) -> f64 {
        match self {
            Self::Relu => std::f64::consts::SQRT_2,
            Self::Tanh => 5.0 / 3.0,
        }
    }
}

/// Whether agents share their networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// One actor and one critic for all agents, told apart by a bias of their own in the first layer.
    #[default]
    Shared,
    /// One actor and one critic per agent.
    Separate,
}

/// What decides all sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Agents of an environment.
    pub agents: u32,
    /// Features of one agent's observation. The critic sees those of all agents.
    pub obs_dim: u32,
    /// Discrete actions of an agent, 2 to 32.
    pub actions: u32,
    /// Widths of the hidden layers, one to four.
    pub hidden: Vec<u32>,
    /// Whether agents share networks.
    pub sharing: Sharing,
}

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
    /// Row of the activation buffer that enters the LayerNorm.
    pub before: u32,
    /// Row that leaves it.
    pub after: u32,
    /// Row of its mean; 1/deviation follows.
    pub moments: u32,
    /// Row of the gradient buffer for the matrix product.
    pub grad_product: u32,
    /// Row of the gradient buffer for what left the LayerNorm.
    pub grad_normed: u32,
}

/// All networks of one role (actors or critics). Counterpart of `Role` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Role {
    /// Linear layers, the head included.
    pub layers: u32,
    /// First vec4 of the first network.
    pub params: u32,
    /// vec4s from one agent's network to the next; 0 when shared.
    pub net_stride: u32,
    /// 1: sees all agents' observations.
    pub joint: u32,
    /// 1: a bias per agent in the first layer.
    pub agent_bias: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 3],
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
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

/// One network in the flat parameter buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// 0: actor, 1: critic.
    pub role: usize,
    /// The agent it belongs to; `None`: all.
    pub agent: Option<u32>,
    /// First vec4.
    pub first: u32,
    /// Number of vec4s.
    pub length: u32,
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
    pub roles: [Role; 2],
    /// All networks, actors first.
    pub nets: Vec<Net>,
    /// All tensors in the order of the parameter buffer.
    pub tensors: Vec<Tensor>,
    /// vec4s of the parameter buffer.
    pub params: u32,
    /// Rows of the activation buffer; each is one vec4 per quad of rows.
    pub act_rows: u32,
    /// Rows of the gradient buffer.
    pub grad_rows: u32,
}

struct Cursor {
    acts: u32,
    grads: u32,
}

impl Layout {
    /// Lays out all networks of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes out of range.
    pub fn new(shape: &Shape) -> Result<Self> {
        check(shape)?;
        let mut cursor = Cursor { acts: 0, grads: 0 };
        let mut params = 0;
        let mut nets = Vec::new();
        let mut tensors = Vec::new();
        let mut roles = [Role::default(); 2];
        for (index, role) in roles.iter_mut().enumerate() {
            let (inputs, outputs) = match index {
                0 => (shape.obs_dim, shape.actions),
                _ => (shape.obs_dim * shape.agents, 1),
            };
            let shared = shape.sharing == Sharing::Shared;
            let biases = if shared { shape.agents } else { 1 };
            let length = lay_out_role(role, inputs, outputs, &shape.hidden, biases, &mut cursor);
            role.joint = index as u32;
            role.agent_bias = u32::from(shared && shape.agents > 1);
            role.params = params;
            role.net_stride = if shared { 0 } else { length };
            for copy in 0..if shared { 1 } else { shape.agents } {
                let agent = (!shared).then_some(copy);
                nets.push(Net { role: index, agent, first: params, length });
                name_tensors(role, index, agent, params, biases, &mut tensors);
                params =
                    params.checked_add(length).filter(|total| *total <= MOST_PARAMS).ok_or_else(|| {
                        let most = u64::from(MOST_PARAMS) * 4;
                        Error::config(
                            "hidden",
                            format!("the networks would have more than {most} parameters"),
                        )
                    })?;
            }
        }
        Ok(Self {
            shape: shape.clone(),
            roles,
            nets,
            tensors,
            params,
            act_rows: cursor.acts,
            grad_rows: cursor.grads,
        })
    }

    /// Row of the gradient buffer where the gradient at the head of `role` begins.
    #[must_use]
    pub fn head_gradient(&self, role: usize) -> u32 {
        let role = &self.roles[role];
        role.layer[role.layers as usize - 1].grad_product
    }

    /// Parameters that exist, padding not counted.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| (tensor.shape[0] * tensor.shape[1]) as u64).sum()
    }
}

fn check(shape: &Shape) -> Result<()> {
    let range = |key: &str, value: u32, low: u32, high: u32| {
        if (low..=high).contains(&value) {
            return Ok(());
        }
        Err(Error::config(key, format!("{value} is out of range: from {low} to {high}")))
    };
    range("agents", shape.agents, 1, 1024)?;
    range("observation features", shape.obs_dim, 1, 65_536 / shape.agents.max(1))?;
    range("actions", shape.actions, 2, 32)?;
    range("hidden layers", shape.hidden.len() as u32, 1, MAX_LAYERS as u32 - 1)?;
    shape.hidden.iter().try_for_each(|width| range("hidden", *width, 1, 1024))
}

/// Fills in a role's layers and returns the vec4s of one of its networks.
fn lay_out_role(
    role: &mut Role,
    inputs: u32,
    outputs: u32,
    hidden: &[u32],
    biases: u32,
    cursor: &mut Cursor,
) -> u32 {
    let widths: Vec<u32> = std::iter::once(inputs).chain(hidden.iter().copied()).chain([outputs]).collect();
    role.layers = widths.len() as u32 - 1;
    let mut offset = 0;
    let mut take = |vec4s: u32| {
        let first = offset;
        offset += vec4s;
        first
    };
    for (index, pair) in widths.windows(2).enumerate() {
        let (inputs, outputs) = (pair[0], pair[1]);
        // Kernels read whole tiles: 16 columns forward, 8 rows backward.
        let (padded_inputs, padded_outputs) = (round_up(inputs, 16), round_up(outputs, 16));
        let layer = &mut role.layer[index];
        layer.inputs = inputs;
        layer.outputs = outputs;
        layer.stride = padded_outputs / 4;
        layer.gain = take(padded_inputs / 4);
        layer.offset = take(padded_inputs / 4);
        layer.weights = take(padded_inputs * layer.stride);
        layer.bias = take(layer.stride * if index == 0 { biases } else { 1 });
        layer.before = cursor.acts;
        layer.after = layer.before + round_up(inputs, 8);
        layer.moments = layer.after + round_up(inputs, 8);
        cursor.acts = layer.moments + 2;
        layer.grad_product = cursor.grads;
        layer.grad_normed = layer.grad_product + round_up(outputs, 4);
        cursor.grads = layer.grad_normed + round_up(inputs, 4);
    }
    offset
}

fn name_tensors(
    role: &Role,
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
        let head = if index == 0 { TensorKind::ActorHead } else { TensorKind::CriticHead };
        let weight = if l + 1 == role.layers { head } else { TensorKind::Hidden };
        let rows = if l == 0 { biases } else { 1 };
        let stride = layer.stride as usize * 4;
        let mut push = |name: &str, at: u32, shape: [u32; 2], stride: usize, kind: TensorKind| {
            tensors.push(Tensor {
                name: format!("{prefix}.{l}.{name}"),
                first: (first + at) as usize * 4,
                shape: shape.map(|size| size as usize),
                stride,
                kind,
            });
        };
        push("norm.weight", layer.gain, [1, layer.inputs], 0, TensorKind::One);
        push("norm.bias", layer.offset, [1, layer.inputs], 0, TensorKind::Zero);
        push("weight", layer.weights, [layer.inputs, layer.outputs], stride, weight);
        push("bias", layer.bias, [rows, layer.outputs], stride, TensorKind::Zero);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sharing: Sharing) -> Shape {
        Shape { agents: 3, obs_dim: 5, actions: 3, hidden: vec![20, 7], sharing }
    }

    #[test]
    fn tensors_neither_overlap_nor_leave_the_buffer() {
        for sharing in [Sharing::Shared, Sharing::Separate] {
            let layout = Layout::new(&shape(sharing)).unwrap();
            let mut taken = vec![false; layout.params as usize * 4];
            for tensor in &layout.tensors {
                for row in 0..tensor.shape[0] {
                    for column in 0..tensor.shape[1] {
                        let at = tensor.first + row * tensor.stride + column;
                        assert!(!std::mem::replace(&mut taken[at], true), "{} overlaps", tensor.name);
                    }
                }
            }
            assert_eq!(taken.iter().filter(|t| **t).count() as u64, layout.parameters());
        }
    }

    #[test]
    fn parameters_are_counted_as_by_hand() {
        let layout = Layout::new(&shape(Sharing::Shared)).unwrap();
        let actor = 2 * 5 + 5 * 20 + 3 * 20 + 2 * 20 + 20 * 7 + 7 + 2 * 7 + 7 * 3 + 3;
        let critic = 2 * 15 + 15 * 20 + 3 * 20 + 2 * 20 + 20 * 7 + 7 + 2 * 7 + 7 + 1;
        assert_eq!(layout.parameters(), actor + critic);
        assert_eq!(layout.nets.len(), 2);
        let separate = Layout::new(&shape(Sharing::Separate)).unwrap();
        assert_eq!(separate.nets.len(), 6);
        assert_eq!(separate.tensors.iter().filter(|t| t.name.starts_with("critic.agent2.")).count(), 12);
    }

    #[test]
    fn sizes_out_of_range_name_the_setting() {
        let mut wrong = shape(Sharing::Shared);
        wrong.hidden = vec![];
        assert!(Layout::new(&wrong).unwrap_err().to_string().contains("hidden layers"));
        let huge = Shape {
            agents: 1024,
            obs_dim: 18,
            hidden: vec![1024],
            sharing: Sharing::Separate,
            ..shape(Sharing::Shared)
        };
        assert!(Layout::new(&huge).unwrap_err().to_string().contains("parameters"));
        wrong.hidden = vec![2000];
        assert_eq!(
            Layout::new(&wrong).unwrap_err().to_string(),
            "setting `hidden`: 2000 is out of range: from 1 to 1024"
        );
    }
}
