//! The networks in plain f64: the reference for the tests of the kernels.

use std::ops::Range;

use super::forward::Memory;
use super::layout::{Layout, NetworkStack, Tensor};
use super::shape::{Activation, CriticInput, Shape, Sharing};

/// Small networks with uneven sizes and their inputs.
pub(crate) struct Case {
    pub shape: Shape,
    pub slots: usize,
    pub quads: usize,
    pub params: Vec<f32>,
    /// `[slot][agent][feature][env]`, followed by the global states, `[slot][feature][env]`.
    pub observations: Vec<f32>,
    /// `[slot][env]`, followed by a row for the step before slot 0.
    pub dones_and_masks: Vec<u32>,
    /// States of the GRUs: `[place][stack][entry][row of a slot]`.
    pub states: Vec<f32>,
    /// Weights of the heads in the loss: `[output][row]`.
    pub loss_logits: Vec<Vec<f64>>,
    pub loss_values: Vec<Vec<f64>>,
}

/// Deterministic values in [-1, 1).
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Uneven and prime widths below, at and above the tiles, one to four layers, every activation, with and without the
/// LayerNorms.
pub(crate) fn cases() -> Vec<Case> {
    use Activation::{Gelu, Relu, Silu, Tanh};
    use Sharing::{Separate, Shared};
    let case = |agents, obs_dim, actions, hidden: &[u32], sharing, activation| Shape {
        agents,
        obs_dim,
        actions,
        hidden: hidden.to_vec(),
        sharing,
        activation,
        ..Shape::default()
    };
    let of_state = |shape| Shape { critic_input: CriticInput::State, ..shape };
    vec![
        Case::new(case(3, 5, 3, &[7], Shared, Tanh), 2, 1, 1),
        Case::new(case(2, 3, 5, &[20, 6], Separate, Tanh), 3, 2, 2),
        Case::new(case(1, 9, 2, &[37, 4, 17], Shared, Relu), 1, 3, 3),
        Case::new(case(2, 2, 4, &[3, 33, 3, 3], Separate, Relu), 1, 8, 4),
        Case::new(Shape { hidden_norm: false, ..case(3, 4, 3, &[35, 18], Shared, Gelu) }, 1, 5, 5),
        Case::new(Shape { constants: 2, ..case(2, 4, 4, &[9], Separate, Tanh) }, 1, 8, 8),
        Case::new(
            Shape {
                agent_identity: false,
                critic_input: CriticInput::Own,
                ..case(3, 6, 3, &[21, 8], Shared, Tanh)
            },
            2,
            1,
            7,
        ),
        Case::new(Shape { input_norm: false, ..case(2, 19, 2, &[40, 34], Shared, Silu) }, 2, 3, 6),
        // Chunks of three slots, the last one shorter; then one chunk of all slots; then chunks of one slot. All with the same
        // activation, because compiling takes most of the time; the trainer's tests have another.
        Case::new(Shape { chunk: 3, ..case(3, 4, 3, &[9, 6], Shared, Gelu) }, 7, 1, 10),
        Case::new(Shape { chunk: 4, ..case(2, 3, 2, &[5], Separate, Gelu) }, 4, 8, 11),
        Case::new(Shape { chunk: 1, hidden_norm: false, ..case(2, 3, 2, &[13], Shared, Gelu) }, 2, 1, 12),
        // Critics of the environment's state: a state wider than a tile, then one network per agent with a GRU.
        Case::new(Shape { state_dim: 35, ..of_state(case(3, 4, 3, &[7], Shared, Tanh)) }, 3, 1, 13),
        Case::new(
            Shape { state_dim: 5, chunk: 2, ..of_state(case(2, 3, 2, &[9], Separate, Gelu)) },
            3,
            8,
            14,
        ),
    ]
}

impl Case {
    pub fn new(shape: Shape, slots: usize, quads: usize, seed: u64) -> Self {
        let mut next = noise(seed);
        let layout = Layout::new(&shape).unwrap();
        let mut params = vec![0f32; layout.params as usize * 4];
        for tensor in &layout.tensors {
            for row in 0..tensor.shape[0] {
                for column in 0..tensor.shape[1] {
                    let centre = if tensor.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
                    params[tensor.first + row * tensor.stride + column] = (centre + 0.7 * next()) as f32;
                }
            }
        }
        let rows = slots * shape.agents as usize * quads * 4;
        let observed = rows * shape.obs_dim as usize + slots * quads * 4 * shape.stored_state() as usize;
        let observations = (0..observed).map(|_| (2.0 * next() + 0.3) as f32).collect();
        let mut weights = |outputs: u32| -> Vec<Vec<f64>> {
            (0..outputs).map(|_| (0..rows).map(|_| f64::from(next() as f32)).collect()).collect()
        };
        let (loss_logits, loss_values) = (weights(shape.actions), weights(1));
        let envs = quads * 4;
        let dones_and_masks = (0..(slots + 1) * envs).map(|_| u32::from(next() < -0.5)).collect();
        let places = Memory::places(slots as u32, shape.chunk, 0) as usize;
        let entries = places * 2 * shape.memory() as usize * shape.agents as usize * envs;
        let states = (0..entries).map(|_| next() as f32).collect();
        Self { shape, slots, quads, params, observations, dones_and_masks, states, loss_logits, loss_values }
    }

    pub fn layout(&self) -> Layout {
        Layout::new(&self.shape).unwrap()
    }

    pub fn rows(&self) -> usize {
        self.slots * self.shape.agents as usize * self.quads * 4
    }

    /// One network for one row. With a GRU, `h` is its state, which is replaced by the next one.
    fn network(
        &self,
        stack: &NetworkStack,
        params: &[f64],
        agent: usize,
        input: Vec<f64>,
        h: &mut Vec<f64>,
    ) -> Vec<f64> {
        let net = (stack.params as usize + agent * stack.net_stride as usize) * 4;
        let p = |at: usize| params[at];
        let mut x = input;
        let mut of_input = Vec::new();
        for l in 0..stack.layers as usize {
            let layer = stack.layer[l];
            if layer.kind == 2 {
                of_input = std::mem::replace(&mut x, h.clone());
            }
            let at = |vec4s: u32| net + vec4s as usize * 4;
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let deviation = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
            let normed = |(k, v): (usize, &f64)| {
                (v - mean) / deviation * p(at(layer.gain) + k) + p(at(layer.offset) + k)
            };
            let y: Vec<f64> = if layer.norm == 1 { x.iter().enumerate().map(normed).collect() } else { x };
            let stride = layer.stride as usize * 4;
            let bias_row = if l == 0 { agent * stack.agent_bias as usize } else { 0 };
            x = (0..layer.outputs as usize)
                .map(|c| {
                    let column = params[at(layer.weights) + c..].iter().step_by(stride);
                    let product: f64 = y.iter().zip(column).map(|(v, weight)| v * weight).sum();
                    product + p(at(layer.bias) + bias_row * stride + c)
                })
                .collect();
            if layer.kind == 2 {
                let size = h.len();
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                for j in 0..size {
                    let reset = sigmoid(of_input[size + j] + x[j]);
                    let update = sigmoid(of_input[2 * size + j] + x[size + j]);
                    let candidate = (of_input[j] + reset * x[2 * size + j]).tanh();
                    h[j] = (1.0 - update) * candidate + update * h[j];
                }
                x.clone_from(h);
            } else if layer.kind == 0 && l + 1 < stack.layers as usize {
                x.iter_mut().for_each(|v| {
                    *v = match self.shape.activation {
                        Activation::Relu => v.max(0.0),
                        Activation::Tanh => v.tanh(),
                        Activation::Gelu => *v * normal_distribution(*v),
                        Activation::Silu => *v / (1.0 + (-*v).exp()),
                    };
                });
            }
        }
        x
    }

    fn head(&self, layout: &Layout, stack: usize, params: &[f64], chunks: bool) -> Vec<Vec<f64>> {
        let (agents, features, envs) =
            (self.shape.agents as usize, self.shape.obs_dim as usize, self.quads * 4);
        let observe = |slot: usize, f: usize, agent: usize, env: usize| {
            f64::from(self.observations[((slot * agents + agent) * features + f) * envs + env])
        };
        let state = |slot: usize, number: usize, env: usize| {
            let first = self.rows() * features;
            let numbers = self.shape.state_dim as usize;
            f64::from(self.observations[first + (slot * numbers + number) * envs + env])
        };
        let size = self.shape.memory() as usize;
        let mut remembered = vec![vec![0.0; size]; agents * envs];
        let mut rows = Vec::new();
        for slot in 0..self.slots {
            for agent in 0..agents {
                for env in 0..envs {
                    let of = |agents: Range<usize>| -> Vec<f64> {
                        let all = agents.flat_map(|a| (0..features).map(move |f| (a, f)));
                        all.map(|(a, f)| observe(slot, f, a, env)).collect()
                    };
                    let input = match (stack, self.shape.critic_input) {
                        (0, _) | (_, CriticInput::Own) => of(agent..agent + 1),
                        (_, CriticInput::Joint) => of(0..agents),
                        (_, CriticInput::State) => {
                            (0..self.shape.state_dim as usize).map(|i| state(slot, i, env)).collect()
                        }
                    };
                    let h = &mut remembered[agent * envs + env];
                    self.enter(chunks, stack, slot, agent, env, h);
                    rows.push(self.network(&layout.stacks[stack], params, agent, input, h));
                }
            }
        }
        (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
    }

    /// Sets the state that enters a slot: at the beginning of a chunk (with `chunks`; else of the rollout) the stored state, at
    /// the beginning of an episode zero.
    fn enter(&self, chunks: bool, stack: usize, slot: usize, agent: usize, env: usize, h: &mut Vec<f64>) {
        let (envs, size) = (self.quads * 4, self.shape.memory() as usize);
        let per_slot = self.shape.agents as usize * envs;
        if size > 0 && (slot == 0 || chunks && slot.is_multiple_of(self.shape.chunk as usize)) {
            let place = Memory::place(slot as u32, self.shape.chunk) as usize;
            let at = |j: usize| ((place * 2 + stack) * size + j) * per_slot + agent * envs + env;
            *h = (0..size).map(|j| f64::from(self.states[at(j)])).collect();
        }
        let before = if slot == 0 { self.slots } else { slot - 1 };
        if self.dones_and_masks[before * envs + env] != 0 {
            h.fill(0.0);
        }
    }

    /// Logits and values, `[output][row]`.
    pub fn heads(&self, params: &[f32]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let (layout, params) = (self.layout(), in_f64(params));
        (self.head(&layout, 0, &params, true), self.head(&layout, 1, &params, true))
    }

    /// Logits and values with the states of slot 0 carried through all slots.
    pub fn whole(&self) -> [Vec<Vec<f64>>; 2] {
        let (layout, params) = (self.layout(), in_f64(&self.params));
        [0, 1].map(|stack| self.head(&layout, stack, &params, false))
    }

    /// Central difference of the loss in parameter `at`, through the stack that the parameter belongs to.
    pub fn difference(&self, at: usize) -> f64 {
        self.difference_of(&self.layout(), &mut in_f64(&self.params), at)
    }

    fn difference_of(&self, layout: &Layout, params: &mut [f64], at: usize) -> f64 {
        let step = 1e-5;
        let stack = usize::from(at >= layout.stacks[1].params as usize * 4);
        let weights = [&self.loss_logits, &self.loss_values][stack];
        let centre = params[at];
        let [above, below] = [step, -step].map(|by| -> f64 {
            params[at] = centre + by;
            let heads = self.head(layout, stack, params, true);
            weights.iter().zip(&heads).flat_map(|(w, h)| w.iter().zip(h)).map(|(w, h)| w * h).sum()
        });
        params[at] = centre;
        (above - below) / (2.0 * step)
    }

    /// Central differences in every parameter, tensor by tensor.
    pub fn differences(&self) -> Vec<Vec<f64>> {
        let (layout, mut params) = (self.layout(), in_f64(&self.params));
        let of =
            |tensor: &Tensor| places(tensor).map(|at| self.difference_of(&layout, &mut params, at)).collect();
        layout.tensors.iter().map(of).collect()
    }

    /// Asserts that no difference exceeds `tolerance` times the largest expected value.
    pub fn compare(what: &str, got: &[Vec<f32>], expected: &[Vec<f64>], tolerance: f64) {
        let scale = expected.iter().flatten().fold(1e-2f64, |m, x| m.max(x.abs()));
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            let error = (f64::from(*got) - expected).abs() / scale;
            assert!(error < tolerance, "{what}: got {got}, expected {expected} (error {error:e})");
        }
    }
}

fn in_f64(params: &[f32]) -> Vec<f64> {
    params.iter().copied().map(f64::from).collect()
}

/// Indices of a tensor's elements in the parameter buffer.
pub(super) fn places(tensor: &Tensor) -> impl Iterator<Item = usize> {
    let Tensor { first, shape: [rows, columns], stride, .. } = *tensor;
    (0..rows).flat_map(move |row| (0..columns).map(move |column| first + row * stride + column))
}

/// The normal distribution function: its Taylor series about 0, and its continued fraction in the tails, where the series
/// cancels.
fn normal_distribution(x: f64) -> f64 {
    let root = (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() > 3.0 {
        let fraction = (1..200).rev().fold(x.abs(), |f, n| x.abs() + f64::from(n) / f);
        let tail = (-x * x / 2.0).exp() / root / fraction;
        return if x > 0.0 { 1.0 - tail } else { tail };
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / (2.0 * f64::from(n));
        sum += term / f64::from(2 * n + 1);
    }
    0.5 + sum / root
}
