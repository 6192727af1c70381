//! The networks once more in plain f64, for the tests of the kernels.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use half::f16;

use super::*;
use crate::gpu::{Command, Gpu, Kernel, Recorder, Variant};
use crate::nn::layout::NetworkStack;
use crate::nn::synthetic_pass::stored;

/// A small problem with uneven sizes.
pub(crate) struct Case {
    pub shape: Shape,
    pub slots: usize,
    pub quads: usize,
    pub params: Vec<f32>,
    /// `[slot][agent][feature][env]`, and after them the environments' own states, `[slot][number][env]`.
    pub observations: Vec<f32>,
    /// `[slot][env]`, of a rollout that goes on beyond the case, and a row more for the step before slot 0.
    pub dones_and_masks: Vec<u32>,
    /// `[place][role][entry][row of a slot]`
    pub states: Vec<f32>,
    /// Weights of the heads in the loss: `[output][row]`.
    pub loss_logits: Vec<Vec<f64>>,
    pub loss_values: Vec<Vec<f64>>,
}

/// What the kernels made of it.
pub(crate) struct Run {
    pub logits: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    /// Bytes of the buffers, as they are.
    pub acts: Vec<u8>,
    pub grads: Vec<u8>,
    pub gradient: Vec<f32>,
}

/// Values in [-1, 1) that repeat from run to run.
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
        // Chunks of three slots, the last of one; then a chunk that is the whole, and chunks of one slot. All of one activation:
        // compiling takes longest, and the trainer's tests have another.
        Case::new(Shape { chunk: 3, ..case(3, 4, 3, &[9, 6], Shared, Gelu) }, 7, 1, 10),
        Case::new(Shape { chunk: 4, ..case(2, 3, 2, &[5], Separate, Gelu) }, 4, 8, 11),
        Case::new(Shape { chunk: 1, hidden_norm: false, ..case(2, 3, 2, &[13], Shared, Gelu) }, 2, 1, 12),
        // Critics of states that take two tiles, then of states of their own agents' networks and with a GRU.
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
        let seen = rows * shape.obs_dim as usize + slots * quads * 4 * shape.stored_state() as usize;
        let observations = (0..seen).map(|_| (2.0 * next() + 0.3) as f32).collect();
        let mut weights = |outputs: u32| -> Vec<Vec<f64>> {
            (0..outputs).map(|_| (0..rows).map(|_| f64::from(next() as f32)).collect()).collect()
        };
        let (loss_logits, loss_values) = (weights(shape.actions), weights(1));
        let envs = quads * 4;
        let dones_and_masks = (0..(slots + 1) * envs).map(|_| u32::from(next() < -0.5)).collect();
        let places = forward::Memory::places(slots as u32, shape.chunk, 0) as usize;
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

    /// The stack for one row, by the book. With a GRU `h` goes in as what was remembered and comes out as what is.
    fn stack(
        &self,
        role: &NetworkStack,
        params: &[f32],
        nudge: Option<(usize, f64)>,
        agent: usize,
        input: Vec<f64>,
        h: &mut Vec<f64>,
    ) -> Vec<f64> {
        let net = (role.params as usize + agent * role.net_stride as usize) * 4;
        let p =
            |at: usize| f64::from(params[at]) + nudge.map_or(0.0, |(i, by)| if i == at { by } else { 0.0 });
        let mut x = input;
        let mut of_input = Vec::new();
        for l in 0..role.layers as usize {
            let layer = role.layer[l];
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
            let bias_row = if l == 0 { agent * role.agent_bias as usize } else { 0 };
            x = (0..layer.outputs as usize)
                .map(|c| {
                    let product: f64 =
                        y.iter().enumerate().map(|(k, v)| v * p(at(layer.weights) + k * stride + c)).sum();
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
            } else if layer.kind == 0 && l + 1 < role.layers as usize {
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

    fn head(&self, role: usize, params: &[f32], nudge: Option<(usize, f64)>, chunks: bool) -> Vec<Vec<f64>> {
        let layout = self.layout();
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
                    let input = match (role, self.shape.critic_input) {
                        (0, _) | (_, CriticInput::Own) => of(agent..agent + 1),
                        (_, CriticInput::Joint) => of(0..agents),
                        (_, CriticInput::State) => {
                            (0..self.shape.state_dim as usize).map(|i| state(slot, i, env)).collect()
                        }
                    };
                    let h = &mut remembered[agent * envs + env];
                    self.enter(chunks, role, slot, agent, env, h);
                    rows.push(self.stack(&layout.roles[role], params, nudge, agent, input, h));
                }
            }
        }
        (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
    }

    /// What enters a slot: what is kept where a chunk begins (of the whole, when they are not `chunks`), nothing where an
    /// episode does.
    fn enter(&self, chunks: bool, role: usize, slot: usize, agent: usize, env: usize, h: &mut Vec<f64>) {
        let (envs, size) = (self.quads * 4, self.shape.memory() as usize);
        let per_slot = self.shape.agents as usize * envs;
        if size > 0 && (slot == 0 || chunks && slot.is_multiple_of(self.shape.chunk as usize)) {
            let place = forward::Memory::place(slot as u32, self.shape.chunk) as usize;
            let at = |j: usize| ((place * 2 + role) * size + j) * per_slot + agent * envs + env;
            *h = (0..size).map(|j| f64::from(self.states[at(j)])).collect();
        }
        let before = if slot == 0 { self.slots } else { slot - 1 };
        if self.dones_and_masks[before * envs + env] != 0 {
            h.fill(0.0);
        }
    }

    /// Logits and values, `[output][row]`.
    pub fn heads(&self, params: &[f32]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        (self.head(0, params, None, true), self.head(1, params, None, true))
    }

    /// The same with the states of slot 0 carried on through all slots.
    pub fn whole(&self) -> [Vec<Vec<f64>>; 2] {
        [0, 1].map(|role| self.head(role, &self.params, None, false))
    }

    /// Central difference of the loss in parameter `at`: through the role that it belongs to, the other does not change.
    pub fn difference(&self, at: usize) -> f64 {
        let step = 1e-5;
        let role = usize::from(at >= self.layout().roles[1].params as usize * 4);
        let weights = [&self.loss_logits, &self.loss_values][role];
        let loss = |by: f64| -> f64 {
            let heads = self.head(role, &self.params, Some((at, by)), true);
            weights.iter().zip(&heads).flat_map(|(w, h)| w.iter().zip(h)).map(|(w, h)| w * h).sum()
        };
        (loss(step) - loss(-step)) / (2.0 * step)
    }

    /// Where things lie that a batch names only for some networks: what a GRU remembers, and the environments' own states.
    fn offsets(&self) -> Batch {
        Batch {
            length: self.shape.chunk,
            chunk: self.shape.chunk,
            steps: self.slots as u32,
            endings: (self.slots * self.quads) as u32,
            first_state: (self.rows() / 4) as u32 * self.shape.obs_dim,
            state_dim: self.shape.stored_state(),
            ..Batch::default()
        }
    }

    /// Forward, backward, weight gradients, reduction and unfolding on the device, checks on. The gradient at the heads is
    /// scaled by `scale`, which is taken out of the result again.
    pub fn run(&self, kernel_config: &KernelConfig, scale: f64) -> Run {
        self.play(kernel_config, scale, None)
    }

    /// The forward pass alone, of a GRU, in dispatches of `length` slots, each of which goes on where the last one ended.
    pub fn walk(&self, kernel_config: &KernelConfig, length: usize) -> Run {
        self.play(kernel_config, 1.0, Some(length))
    }

    fn play(&self, kernel_config: &KernelConfig, scale: f64, walk: Option<usize>) -> Run {
        let gpu = bench().0.clone();
        let layout = self.layout();
        let kernel_config = &kernel_config.for_layout(gpu.class(), &layout);
        let precision = kernel_config.storage.precision();
        let quads = (self.rows() / 4) as u32;
        let room = kernel_config.room(u64::from(quads)) as u32;
        let actions = self.shape.actions;
        let batch = Batch {
            rows: quads,
            stride: room,
            agents: self.shape.agents,
            quads: self.quads as u32,
            obs_dim: self.shape.obs_dim,
            head_critic: actions * room,
            keep: 1,
            acts: layout.act_rows,
            grads: layout.grad_rows,
            ..self.offsets()
        };
        let per_slot = self.shape.agents * self.quads as u32;
        let pieces: Vec<_> = (0..self.slots)
            .step_by(walk.unwrap_or(self.slots))
            .map(|first| match walk {
                None => batch,
                Some(length) => Batch {
                    first_slot: first as u32,
                    rows: per_slot * length.min(self.slots - first) as u32,
                    length: length as u32,
                    remember: 1,
                    head_actor: per_slot * first as u32,
                    head_critic: batch.head_critic + per_slot * first as u32,
                    ..batch
                },
            })
            .collect();
        let batches = &gpu.uniform_table("batches", &pieces).unwrap();
        let roles = &forward::upload_roles(&gpu, &layout.roles).unwrap();
        let params = &gpu.upload("params", &self.params).unwrap();
        let observations = &gpu.upload("observations", &stored(&self.observations, precision)).unwrap();
        // Buffers start as NaN: whatever is read before it is written shows.
        let blank = |rows: u32, bytes: u64| {
            let nan =
                if bytes == 4 { f32::NAN.to_le_bytes().to_vec() } else { f16::NAN.to_le_bytes().to_vec() };
            gpu.upload("blank", &nan.repeat((rows.max(1) * room * 4) as usize)).unwrap()
        };
        let acts = &blank(layout.act_rows, precision.bytes());
        let grads = &blank(layout.grad_rows, precision.bytes());
        let (head, moments) = (&blank(actions + 1, 4), &blank(layout.moment_rows, 4));
        let plan = WorkingWeights::plan(&layout, kernel_config);
        let arena = crate::gpu::Arena::allocate(&gpu, &plan).unwrap();
        let working = arena.get("working weights").unwrap();
        let weights = &WorkingWeights::new(&gpu, &layout, kernel_config, roles, params, working).unwrap();
        let mut recorder = Recorder::new(&gpu);
        recorder.run(weights.refresh()).unwrap();

        let variant = kernel_config.stack(&self.shape);
        let kernel =
            compiled("forward", variant.clone(), || forward::kernel(&gpu, &self.shape, kernel_config));
        let dones_and_masks = &gpu.upload("dones_and_masks", &self.dones_and_masks).unwrap();
        let states = &gpu.upload("states", &[&self.states[..], &[f32::NAN; 4]].concat()).unwrap();
        let memory = self.shape.recurrent().then_some(forward::Memory { states, dones_and_masks });
        let buffers = forward::Buffers { batches, roles, weights, observations, acts, head, moments, memory };
        let group = forward::bind(&gpu, &kernel, buffers).unwrap();
        let stride = gpu.uniform_stride::<Batch>();
        for (index, piece) in (0..).zip(&pieces) {
            let grid = forward::groups(kernel_config, piece, 2);
            recorder.run(&[Command::dispatch_at(&kernel, &group, index, stride, grid)]).unwrap();
        }
        let heads: Vec<f32> = gpu.read(head).unwrap();
        let row = |i: usize| {
            let start = i * room as usize * 4;
            heads[start..start + self.rows()].to_vec()
        };

        let (logits, values) = ((0..actions as usize).map(row).collect(), vec![row(actions as usize)]);
        if walk.is_some() {
            return Run { logits, values, acts: vec![], grads: vec![], gradient: vec![] };
        }

        let grid = forward::groups(kernel_config, &batch, 2);
        let tile = kernel_config.block() as usize;
        let mut seed = vec![f32::NAN; (layout.grad_rows * room * 4) as usize];
        for (role, weights) in [(0, &self.loss_logits), (1, &self.loss_values)] {
            for (c, values) in weights.iter().enumerate() {
                let feature = layout.head_gradient(role) as usize + c;
                for (i, value) in values.iter().enumerate() {
                    let quad = i / 4;
                    let block = quad / tile * layout.grad_rows as usize + feature;
                    seed[(block * tile + quad % tile) * 4 + i % 4] = (value * scale) as f32;
                }
            }
        }
        gpu.write(grads, 0, &stored(&seed, precision)).unwrap();
        let kernel = compiled("backward", variant, || backward::kernel(&gpu, &self.shape, kernel_config));
        let dones_and_masks = memory.map(|memory| memory.dones_and_masks);
        let buffers = backward::Buffers { batches, roles, weights, acts, moments, grads, dones_and_masks };
        let group = backward::bind(&gpu, &kernel, buffers).unwrap();
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();

        let splits = 3;
        let tiles = weight_gradient::tiles(&layout, kernel_config);
        let zeros =
            |count: u32| gpu.upload("zeros", &vec![0f32; (count * layout.params * 4) as usize]).unwrap();
        let (partials, sums, gradient) = (&zeros(splits), &zeros(1), &zeros(1));
        let variant = weight_gradient::variant(kernel_config);
        let kernel = compiled("weights", variant, || weight_gradient::kernel(&gpu, kernel_config));
        let split = weight_gradient::Split {
            count: splits,
            stride: layout.params,
            tiles: tiles.len() as u32,
            pad: 0,
        };
        let buffers = weight_gradient::Buffers {
            batches,
            split: &gpu.uniform("split", &split).unwrap(),
            tiles: &gpu.upload("tiles", &tiles).unwrap(),
            observations,
            acts,
            moments,
            grads,
            partials,
        };
        let group = weight_gradient::bind(&gpu, &kernel, buffers).unwrap();
        let grid = weight_gradient::groups(tiles.len() as u32, splits);
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();
        let kernel = reduce::kernel(&gpu).unwrap();
        let whole = reduce::Reduce { length: layout.params, splits, first: 1, pad: 0 };
        let group = reduce::bind(&gpu, &kernel, &whole, partials, sums).unwrap();
        let grid = reduce::groups(&kernel.variant, layout.params);
        recorder.run(&[Command::dispatch(&kernel, &group, grid)]).unwrap();
        let unfolded = [roles, weights.nets(), params, sums, gradient];
        recorder.run(&[unfold::command(&gpu, &layout, unfolded).unwrap()]).unwrap();
        let mut gradient: Vec<f32> = gpu.read(gradient).unwrap();
        gradient.iter_mut().for_each(|g| *g = (f64::from(*g) / scale) as f32);
        Run { logits, values, acts: gpu.read(acts).unwrap(), grads: gpu.read(grads).unwrap(), gradient }
    }

    /// Central differences in every parameter that exists, tensor by tensor.
    pub fn differences(&self) -> Vec<Vec<f64>> {
        let of = |tensor: &Tensor| places(tensor).map(|at| self.difference(at)).collect();
        self.layout().tensors.iter().map(of).collect()
    }

    /// Whether the gradients of a run are these.
    pub fn compare_gradients(&self, what: &str, run: &Run, differences: &[Vec<f64>], tolerance: f64) {
        for (tensor, expected) in self.layout().tensors.iter().zip(differences) {
            let got: Vec<f32> = places(tensor).map(|at| run.gradient[at]).collect();
            let what = format!("{what}: {}", tensor.name);
            Self::compare(&what, &[got], std::slice::from_ref(expected), tolerance);
        }
    }

    /// Largest difference below `tolerance` of the largest expected value.
    pub fn compare(what: &str, got: &[Vec<f32>], expected: &[Vec<f64>], tolerance: f64) {
        let scale = expected.iter().flatten().fold(1e-2f64, |m, x| m.max(x.abs()));
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            let error = (f64::from(*got) - expected).abs() / scale;
            assert!(error < tolerance, "{what}: got {got}, expected {expected} (error {error:e})");
        }
    }
}

/// Indices of a tensor's elements in the parameter buffer.
fn places(tensor: &Tensor) -> impl Iterator<Item = usize> {
    let Tensor { first, shape: [rows, columns], stride, .. } = *tensor;
    (0..rows).flat_map(move |row| (0..columns).map(move |column| first + row * stride + column))
}

/// By its Taylor series about 0, and by its continued fraction in the tails, where the series cancels.
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

/// Kernels by name and variant.
type Kernels = Mutex<HashMap<(&'static str, Variant), Kernel>>;

/// One device and one of each kernel for all tests of this family: compiling is most of their time.
fn bench() -> &'static (Gpu, Kernels) {
    static BENCH: OnceLock<(Gpu, Kernels)> = OnceLock::new();
    BENCH.get_or_init(|| (crate::testing::gpu(), Mutex::default()))
}

fn compiled(name: &'static str, variant: Variant, compile: impl FnOnce() -> crate::Result<Kernel>) -> Kernel {
    let mut kernels = bench().1.lock().unwrap();
    kernels.entry((name, variant)).or_insert_with(|| compile().unwrap()).clone()
}
