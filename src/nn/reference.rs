//! The networks once more in plain f64, for the tests of the kernels.

use super::*;
use crate::gpu::{Command, Gpu, GpuOptions, Recorder};
use crate::nn::layout::Role;

/// A small problem with uneven sizes.
pub(crate) struct Case {
    pub shape: Shape,
    pub activation: Activation,
    pub slots: usize,
    pub quads: usize,
    pub params: Vec<f32>,
    /// `[slot][feature][agent][env]`
    pub observations: Vec<f32>,
    /// Weights of the heads in the loss: `[output][row]`.
    pub loss_logits: Vec<Vec<f64>>,
    pub loss_values: Vec<Vec<f64>>,
}

/// What the kernels made of it.
pub(crate) struct Run {
    pub logits: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    pub grads: Vec<f32>,
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

pub(crate) fn cases() -> Vec<Case> {
    use Sharing::{Separate, Shared};
    [
        (3, 5, 3, vec![7], Shared, Activation::Tanh, 2, 1),
        (2, 3, 5, vec![20, 6], Separate, Activation::Tanh, 3, 2),
        (1, 9, 2, vec![5, 4, 17], Shared, Activation::Relu, 1, 3),
        (3, 2, 4, vec![3, 3, 3, 3], Separate, Activation::Relu, 1, 1),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (agents, obs_dim, actions, hidden, sharing, activation, slots, quads))| {
        let shape = Shape { agents, obs_dim, actions, hidden, sharing };
        Case::new(shape, activation, slots, quads, i as u64 + 1)
    })
    .collect()
}

impl Case {
    fn new(shape: Shape, activation: Activation, slots: usize, quads: usize, seed: u64) -> Self {
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
        let observations =
            (0..rows * shape.obs_dim as usize).map(|i| (next() + i as f64 * 0.01) as f32).collect();
        let mut weights = |outputs: u32| -> Vec<Vec<f64>> {
            (0..outputs).map(|_| (0..rows).map(|_| f64::from(next() as f32)).collect()).collect()
        };
        let (loss_logits, loss_values) = (weights(shape.actions), weights(1));
        Self { shape, activation, slots, quads, params, observations, loss_logits, loss_values }
    }

    pub fn layout(&self) -> Layout {
        Layout::new(&self.shape).unwrap()
    }

    pub fn rows(&self) -> usize {
        self.slots * self.shape.agents as usize * self.quads * 4
    }

    /// The stack for one row, by the book.
    fn stack(
        &self,
        role: &Role,
        params: &[f32],
        nudge: Option<(usize, f64)>,
        agent: usize,
        input: Vec<f64>,
    ) -> Vec<f64> {
        let net = (role.params as usize + agent * role.net_stride as usize) * 4;
        let p =
            |at: usize| f64::from(params[at]) + nudge.map_or(0.0, |(i, by)| if i == at { by } else { 0.0 });
        let mut x = input;
        for l in 0..role.layers as usize {
            let layer = role.layer[l];
            let at = |vec4s: u32| net + vec4s as usize * 4;
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let deviation = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
            let y: Vec<f64> = x
                .iter()
                .enumerate()
                .map(|(k, v)| (v - mean) / deviation * p(at(layer.gain) + k) + p(at(layer.offset) + k))
                .collect();
            let stride = layer.stride as usize * 4;
            let bias_row = if l == 0 { agent * role.agent_bias as usize } else { 0 };
            x = (0..layer.outputs as usize)
                .map(|c| {
                    let product: f64 =
                        y.iter().enumerate().map(|(k, v)| v * p(at(layer.weights) + k * stride + c)).sum();
                    product + p(at(layer.bias) + bias_row * stride + c)
                })
                .collect();
            if l + 1 < role.layers as usize {
                x.iter_mut().for_each(|v| {
                    *v = match self.activation {
                        Activation::Relu => v.max(0.0),
                        Activation::Tanh => v.tanh(),
                    };
                });
            }
        }
        x
    }

    fn head(&self, role: usize, params: &[f32], nudge: Option<(usize, f64)>) -> Vec<Vec<f64>> {
        let layout = self.layout();
        let (agents, features, envs) =
            (self.shape.agents as usize, self.shape.obs_dim as usize, self.quads * 4);
        let observe = |slot: usize, f: usize, agent: usize, env: usize| {
            f64::from(self.observations[((slot * features + f) * agents + agent) * envs + env])
        };
        let mut rows = Vec::new();
        for slot in 0..self.slots {
            for agent in 0..agents {
                for env in 0..envs {
                    let seen = if role == 0 { agent..agent + 1 } else { 0..agents };
                    let input = seen.flat_map(|a| (0..features).map(move |f| (a, f)));
                    let input = input.map(|(a, f)| observe(slot, f, a, env)).collect();
                    rows.push(self.stack(&layout.roles[role], params, nudge, agent, input));
                }
            }
        }
        (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
    }

    /// Logits and values, `[output][row]`.
    pub fn heads(&self, params: &[f32]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        (self.head(0, params, None), self.head(1, params, None))
    }

    /// Central difference of the loss in parameter `at`.
    pub fn difference(&self, at: usize) -> f64 {
        let step = 1e-5;
        let loss = |by: f64| -> f64 {
            let sum = |weights: &[Vec<f64>], heads: Vec<Vec<f64>>| -> f64 {
                weights.iter().zip(&heads).flat_map(|(w, h)| w.iter().zip(h)).map(|(w, h)| w * h).sum()
            };
            sum(&self.loss_logits, self.head(0, &self.params, Some((at, by))))
                + sum(&self.loss_values, self.head(1, &self.params, Some((at, by))))
        };
        (loss(step) - loss(-step)) / (2.0 * step)
    }

    /// Forward, backward, weight gradients and reduction on the device, checks on.
    pub fn run(&self) -> Run {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let layout = self.layout();
        let quads = (self.rows() / 4) as u32;
        let actions = self.shape.actions;
        let batch = Batch {
            rows: quads,
            stride: quads,
            agents: self.shape.agents,
            quads: self.quads as u32,
            obs_dim: self.shape.obs_dim,
            head_critic: actions * quads,
            ..Batch::default()
        };
        let batches = gpu.uniform_table("batches", &[batch]).unwrap();
        let roles = forward::upload_roles(&gpu, &layout.roles).unwrap();
        let params = gpu.upload("params", &self.params).unwrap();
        let observations = gpu.upload("observations", &self.observations).unwrap();
        // Buffers start as NaN: whatever is read before it is written shows.
        let blank = |rows: u32| gpu.upload("blank", &vec![f32::NAN; (rows * quads * 4) as usize]).unwrap();
        let (acts, grads, head) = (blank(layout.act_rows), blank(layout.grad_rows), blank(actions + 1));
        let kernel = forward::kernel(&gpu, self.activation).unwrap();
        let buffers = forward::Buffers {
            batches: &batches,
            roles: &roles,
            params: &params,
            observations: &observations,
            acts: &acts,
            head: &head,
        };
        let group = forward::bind(&gpu, &kernel, buffers).unwrap();
        let mut recorder = Recorder::new(&gpu);
        let grid = forward::groups(&kernel.variant, quads, 2);
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();
        let heads: Vec<f32> = gpu.read(&head).unwrap();
        let row = |i: usize| heads[i * self.rows()..(i + 1) * self.rows()].to_vec();

        for (role, weights) in [(0, &self.loss_logits), (1, &self.loss_values)] {
            for c in 0..crate::gpu::round_up(weights.len() as u32, 4) {
                let zero = vec![0.0; self.rows()];
                let values = weights.get(c as usize).unwrap_or(&zero);
                let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                let at = u64::from((layout.head_gradient(role) + c) * quads) * 16;
                gpu.write(&grads, at, bytemuck::cast_slice(&values)).unwrap();
            }
        }
        let kernel = backward::kernel(&gpu, self.activation).unwrap();
        let group = backward::bind(&gpu, &kernel, &batches, &roles, &params, &acts, &grads).unwrap();
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();

        let shares = 3;
        let jobs = weight_gradient::jobs(&layout);
        let partials = gpu.upload("partials", &vec![0f32; (shares * layout.params * 4) as usize]).unwrap();
        let gradient = gpu.upload("gradient", &vec![f32::NAN; layout.params as usize * 4]).unwrap();
        let kernel = weight_gradient::kernel(&gpu).unwrap();
        let split =
            weight_gradient::Split { count: shares, stride: layout.params, jobs: jobs.len() as u32, pad: 0 };
        let buffers = weight_gradient::Buffers {
            batches: &batches,
            split: &gpu.uniform("split", &split).unwrap(),
            jobs: &gpu.upload("jobs", &jobs).unwrap(),
            acts: &acts,
            grads: &grads,
            partials: &partials,
        };
        let group = weight_gradient::bind(&gpu, &kernel, buffers).unwrap();
        let grid = weight_gradient::groups(jobs.len() as u32, shares);
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();
        let kernel = reduce::kernel(&gpu).unwrap();
        let whole = reduce::Reduce { length: layout.params, shares, first: 1, pad: 0 };
        let group = reduce::bind(&gpu, &kernel, &whole, &partials, &gradient).unwrap();
        let grid = reduce::groups(&kernel.variant, layout.params);
        recorder.run(&[Command::dispatch(&kernel, &group, grid)]).unwrap();
        Run {
            logits: (0..actions as usize).map(row).collect(),
            values: vec![row(actions as usize)],
            grads: gpu.read(&grads).unwrap(),
            gradient: gpu.read(&gradient).unwrap(),
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
