//! The networks on the CPU, for single decisions. Every number is rounded as the device's kernels round it, so that both engines differ
//! only in the order of sums: LayerNorms are folded into the weights (nn/fold), and with f16 inputs, weights and activations are f16.

pub(super) mod activation;
mod product;

use crate::nn::{Activation, Layout, Precision};
use crate::ppo::normalize::LIMIT;
use activation::{activate, hyperbolic, sigmoid};
use product::{COLUMNS, packed, product};

/// Added to the variance of a LayerNorm.
const EPSILON: f32 = 1e-5;

/// Actors and critics of all agents.
#[derive(Debug)]
pub(super) struct Networks {
    actors: Vec<Network>,
    critics: Vec<Network>,
    /// Mean, its rounding error, and inverse deviation per agent and feature, then per number of the global state.
    normalization: Vec<[f32; 3]>,
    rounded: bool,
    activation: Activation,
    /// Entries of a GRU's state; 0 without one.
    pub(super) memory: usize,
    /// Most inputs or outputs of a layer, in whole tiles.
    widest: usize,
}

/// One network.
#[derive(Debug)]
struct Network {
    layers: Vec<Dense>,
}

/// Place of a layer in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hidden,
    GatesOfInput,
    GatesOfState,
    Head,
}

/// A matrix product with the LayerNorm before it folded in.
#[derive(Debug)]
struct Dense {
    kind: Kind,
    norm: bool,
    inputs: usize,
    outputs: usize,
    /// Columns of a row of the weights, a multiple of [`COLUMNS`].
    stride: usize,
    /// [`packed`]
    weights: Vec<f32>,
    /// `[agent][column]`: of all agents, or of one.
    bias: Vec<f32>,
}

/// Intermediate results of a network.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    input: Vec<f32>,
    output: Vec<f32>,
    gates: Vec<f32>,
    normed: Vec<f32>,
}

impl Networks {
    /// Networks from the flat parameter buffer, and the running statistics of the observations.
    pub(super) fn new(layout: &Layout, precision: Precision, moments: &[[f32; 4]], params: &[f32]) -> Self {
        let rounded = precision == Precision::F16;
        let nets = |stack: usize| {
            let nets = layout.nets.iter().filter(|net| net.stack == stack);
            nets.map(|net| Network::new(layout, stack, &params[net.first as usize * 4..], rounded)).collect()
        };
        let (actors, critics): (Vec<_>, Vec<_>) = (nets(0), nets(1));
        let layers = actors.iter().chain(&critics).flat_map(|network: &Network| &network.layers);
        let widest = layers.map(|layer| layer.inputs.next_multiple_of(COLUMNS).max(layer.stride)).max();
        let statistics = |[mean, remainder, squares, count]: &[f32; 4]| {
            let deviation = (squares / count.max(1.0)).sqrt();
            let useful = deviation > 1e-6 * mean.abs() && deviation > 1e-20;
            [*mean, *remainder, if useful { 1.0 / deviation } else { 0.0 }]
        };
        Self {
            actors,
            critics,
            normalization: moments.iter().map(statistics).collect(),
            rounded,
            activation: layout.shape.activation,
            memory: layout.shape.memory() as usize,
            widest: widest.unwrap_or(0),
        }
    }

    pub(super) fn scratch(&self) -> Scratch {
        let zeros = || vec![0.0; self.widest];
        Scratch { input: zeros(), output: zeros(), gates: zeros(), normed: zeros() }
    }

    /// Whether the statistics of `columns` numbers are there, if observations are normalised.
    pub(super) fn normalizes(&self, columns: usize) -> bool {
        self.normalization.is_empty() || self.normalization.len() >= columns
    }

    /// Normalises observations from column `first` on, and rounds them to the precision of the networks.
    pub(super) fn prepare(&self, first: usize, raw: &[f32], prepared: &mut [f32]) {
        prepared.copy_from_slice(raw);
        if let Some(statistics) = self.normalization.get(first..) {
            for (value, [mean, remainder, scale]) in prepared.iter_mut().zip(statistics) {
                *value = ((*value - mean - remainder) * scale).clamp(-LIMIT, LIMIT);
            }
        }
        self.round(prepared);
    }

    /// Logits of one agent, or means and logarithms of deviations. `input` is prepared; `memory` is the GRU's state, which is replaced.
    pub(super) fn actor<'a>(
        &self,
        agent: usize,
        input: &[f32],
        memory: &mut [f32],
        scratch: &'a mut Scratch,
    ) -> &'a [f32] {
        self.run(&self.actors, agent, input, memory, scratch)
    }

    /// The value of one agent's situation, as the critic outputs it.
    pub(super) fn critic(
        &self,
        agent: usize,
        input: &[f32],
        memory: &mut [f32],
        scratch: &mut Scratch,
    ) -> f32 {
        self.run(&self.critics, agent, input, memory, scratch).first().copied().unwrap_or(f32::NAN)
    }

    fn run<'a>(
        &self,
        networks: &[Network],
        agent: usize,
        input: &[f32],
        memory: &mut [f32],
        scratch: &'a mut Scratch,
    ) -> &'a [f32] {
        let network = &networks[agent.min(networks.len() - 1)];
        scratch.input[..input.len()].copy_from_slice(input);
        for layer in &network.layers {
            let Scratch { input, output, gates, normed } = &mut *scratch;
            let bias = &layer.bias[agent * layer.stride % layer.bias.len()..][..layer.stride];
            match layer.kind {
                Kind::Head => {
                    layer.apply(input, normed, bias, output);
                    std::mem::swap(input, output);
                }
                Kind::Hidden => {
                    layer.apply(input, normed, bias, output);
                    activate(self.activation, &mut output[..layer.outputs]);
                    self.round(&mut output[..layer.outputs]);
                    std::mem::swap(input, output);
                }
                Kind::GatesOfInput => {
                    layer.apply(input, normed, bias, gates);
                    self.round(&mut gates[..layer.outputs]);
                }
                Kind::GatesOfState => {
                    let size = layer.inputs;
                    input[..size].copy_from_slice(&memory[..size]);
                    self.round(&mut input[..size]);
                    layer.apply(input, normed, bias, output);
                    self.cell(gates, output, &mut input[..size]);
                    memory[..size].copy_from_slice(&input[..size]);
                }
            }
        }
        let outputs = network.layers.last().map_or(0, |head| head.outputs);
        &scratch.input[..outputs]
    }

    /// The next state of a GRU from its gates: candidate, reset and update of the input; reset, update and candidate of the state.
    fn cell(&self, of_input: &[f32], of_state: &[f32], state: &mut [f32]) {
        let size = state.len();
        let round = |value: f32| if self.rounded { rounded(value) } else { value };
        for (j, h) in state.iter_mut().enumerate() {
            let reset = round(sigmoid(round(of_state[j] + of_input[size + j])));
            let update = round(sigmoid(round(of_state[size + j] + of_input[2 * size + j])));
            let candidate = round(hyperbolic(of_input[j] + reset * round(of_state[2 * size + j])));
            *h = round(candidate + update * (*h - candidate));
        }
    }

    fn round(&self, values: &mut [f32]) {
        if self.rounded {
            values.iter_mut().for_each(|value| *value = rounded(*value));
        }
    }
}

/// Rounded to the nearest f16.
fn rounded(value: f32) -> f32 {
    half::f16::from_f32(value).to_f32()
}

impl Network {
    /// One network of a stack, whose parameters begin `params`.
    fn new(layout: &Layout, stack: usize, params: &[f32], rounded: bool) -> Self {
        let stack = &layout.stacks[stack];
        let biases = if stack.agent_bias == 1 { layout.shape.agents as usize } else { 1 };
        let count = stack.layers as usize;
        let layers = stack.layer[..count].iter().enumerate().map(|(index, layer)| {
            let kind = match layer.kind {
                crate::nn::GATES_OF_INPUT => Kind::GatesOfInput,
                crate::nn::GATES_OF_STATE => Kind::GatesOfState,
                _ if index + 1 == count => Kind::Head,
                _ => Kind::Hidden,
            };
            let (inputs, stride) = (layer.inputs as usize, layer.stride as usize * 4);
            let part = |first: u32, length: usize| &params[first as usize * 4..][..length];
            let mut weights = part(layer.weights, inputs * stride).to_vec();
            let biases = if index == 0 { biases } else { 1 };
            let mut bias = part(layer.bias, biases * stride).to_vec();
            let norm = layer.norm == 1;
            if norm {
                fold(&mut weights, &mut bias, part(layer.gain, inputs), part(layer.offset, inputs), stride);
            }
            if rounded {
                weights.iter_mut().chain(&mut bias).for_each(|weight| *weight = self::rounded(*weight));
            }
            let outputs = layer.outputs as usize;
            Dense { kind, norm, inputs, outputs, stride, weights: packed(&weights, stride), bias }
        });
        Self { layers: layers.collect() }
    }
}

/// Multiplies the rows of the weights by the LayerNorm's gain, and adds its offset times the weights to every bias.
fn fold(weights: &mut [f32], bias: &mut [f32], gain: &[f32], offset: &[f32], stride: usize) {
    let mut carried = vec![0f32; stride];
    for (row, offset) in weights.chunks_exact(stride).zip(offset) {
        carried.iter_mut().zip(row).for_each(|(sum, weight)| *sum += offset * weight);
    }
    for bias in bias.chunks_exact_mut(stride) {
        bias.iter_mut().zip(&carried).for_each(|(bias, carried)| *bias += carried);
    }
    for (row, gain) in weights.chunks_exact_mut(stride).zip(gain) {
        row.iter_mut().for_each(|weight| *weight *= gain);
    }
}

impl Dense {
    /// Bias plus the product of the normalised inputs.
    fn apply(&self, input: &[f32], normed: &mut [f32], bias: &[f32], output: &mut [f32]) {
        let input = &input[..self.inputs];
        let input = if self.norm { layer_norm(input, &mut normed[..self.inputs]) } else { input };
        product(input, &self.weights, bias, self.outputs, output);
    }
}

/// (x - mean) / deviation; gain and offset are in the weights.
fn layer_norm<'a>(input: &[f32], normed: &'a mut [f32]) -> &'a [f32] {
    let count = input.len() as f32;
    let mean = product::sum(input) / count;
    normed.iter_mut().zip(input).for_each(|(normed, value)| *normed = value - mean);
    let scale = 1.0 / (product::sum_of_squares(normed) / count + EPSILON).sqrt();
    normed.iter_mut().for_each(|value| *value *= scale);
    normed
}

#[cfg(test)]
mod tests;
