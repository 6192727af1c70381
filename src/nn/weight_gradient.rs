//! Gradients with respect to all parameters of all networks, in one dispatch.
//!
//! Matrix: `dW[i][o]` = sum over rows of `y[i] dz[o]`. Bias: sum of dz. LayerNorm: gain sum of dy n, offset sum of dy. The rows
//! are cut into shares; [`super::reduce`] adds the shares.

use super::layout::{Batch, Layout};
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "nn/weight_gradient", source: include_str!("../../shaders/nn/weight_gradient.wgsl") };

/// One tile of one tensor. Counterpart of `Job` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Job {
    /// 0: matrix, 1: bias, 2: LayerNorm.
    pub kind: u32,
    /// Row of the activation buffer for the left factor.
    pub left: u32,
    /// Row of the gradient buffer.
    pub right: u32,
    /// Row of the LayerNorm's mean.
    pub moments: u32,
    /// First vec4 of the result in the parameter buffer.
    pub output: u32,
    /// vec4s from one row of the result to the next.
    pub stride: u32,
    /// Rows of the result.
    pub inputs: u32,
    /// Columns of the result, 1 to 4.
    pub outputs: u32,
    /// First agent whose rows count.
    pub first_agent: u32,
    /// Agents whose rows count.
    pub agents: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

/// How the rows are shared out. Counterpart of `Split` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Split {
    /// Shares.
    pub count: u32,
    /// vec4s from one share's parameters to the next.
    pub stride: u32,
    /// Tiles.
    pub jobs: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// The decisions for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::independent(class).with("GROUPS", GROUPS_IN_A_ROW)
}

/// Shares of the rows: enough workgroups for a GPU even when the networks are small; two cores need no more than the
/// tiles give.
#[must_use]
pub fn shares(class: Class) -> u32 {
    match class {
        Class::Hardware => 8,
        Class::Software => 1,
    }
}

/// Every tile of every tensor of every network.
#[must_use]
pub fn jobs(layout: &Layout) -> Vec<Job> {
    let mut jobs = Vec::new();
    for net in &layout.nets {
        let role = &layout.roles[net.role];
        let (first_agent, agents) = net.agent.map_or((0, layout.shape.agents), |agent| (agent, 1));
        for l in 0..role.layers as usize {
            let layer = role.layer[l];
            let base = Job { moments: layer.moments, first_agent, agents, ..Job::default() };
            for output in (0..layer.outputs).step_by(4) {
                let outputs = (layer.outputs - output).min(4);
                let right = layer.grad_product + output;
                for input in (0..layer.inputs).step_by(8) {
                    jobs.push(Job {
                        left: layer.after + input,
                        right,
                        output: net.first + layer.weights + input * layer.stride + output / 4,
                        stride: layer.stride,
                        inputs: (layer.inputs - input).min(8),
                        outputs,
                        ..base
                    });
                }
                let bias = Job { kind: 1, right, inputs: 1, outputs, ..base };
                let target = net.first + layer.bias + output / 4;
                if l == 0 && role.agent_bias == 1 {
                    for agent in 0..layout.shape.agents {
                        let output = target + agent * layer.stride;
                        jobs.push(Job { output, first_agent: agent, agents: 1, ..bias });
                    }
                } else {
                    jobs.push(Job { output: target, ..bias });
                }
            }
            for input in (0..layer.inputs).step_by(4) {
                jobs.push(Job {
                    kind: 2,
                    left: layer.before + input,
                    right: layer.grad_normed + input,
                    output: net.first + layer.gain + input / 4,
                    stride: layer.offset - layer.gain,
                    inputs: 2,
                    outputs: (layer.inputs - input).min(4),
                    ..base
                });
            }
        }
    }
    jobs
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Table, Uniform, Write};
    let access = [Table, Uniform, Read, Read, Read, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &access, size_of::<Batch>())
}

/// Workgroups: tiles in x and y, shares in z.
#[must_use]
pub fn groups(jobs: u32, shares: u32) -> [u32; 3] {
    let [x, y] = in_rows(jobs);
    [x, y, shares]
}

/// What the kernel reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// One [`Split`].
    pub split: &'a wgpu::Buffer,
    /// All [`Job`]s.
    pub jobs: &'a wgpu::Buffer,
    /// Activations.
    pub acts: &'a wgpu::Buffer,
    /// Gradients of the activations.
    pub grads: &'a wgpu::Buffer,
    /// Result: `[share][parameter]`.
    pub partials: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers { batches, split, jobs, acts, grads, partials } = buffers;
    kernel.bind(gpu, &[batches, split, jobs, acts, grads, partials])
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Case, cases};

    /// Central differences of a loss that sums the heads with uneven weights, in f64, for every single parameter:
    /// through both heads, every LayerNorm, every activation and the per-agent biases.
    #[test]
    fn every_gradient_agrees_with_finite_differences() {
        for case in cases() {
            let run = case.run();
            for tensor in &case.layout().tensors {
                let mut expected = Vec::new();
                let mut got = Vec::new();
                for row in 0..tensor.shape[0] {
                    for column in 0..tensor.shape[1] {
                        let at = tensor.first + row * tensor.stride + column;
                        expected.push(case.difference(at));
                        got.push(run.gradient[at]);
                    }
                }
                Case::compare(&tensor.name, &[got], &[expected], 2e-4);
            }
        }
    }

    #[test]
    fn padding_gets_no_gradient() {
        for case in cases() {
            let run = case.run();
            let layout = case.layout();
            let mut exists = vec![false; run.gradient.len()];
            for tensor in &layout.tensors {
                for row in 0..tensor.shape[0] {
                    let start = tensor.first + row * tensor.stride;
                    exists[start..start + tensor.shape[1]].fill(true);
                }
            }
            let stray = run.gradient.iter().zip(&exists).find(|(g, exists)| !**exists && **g != 0.0);
            assert_eq!(stray, None);
        }
    }

    #[test]
    fn two_runs_give_the_same_bits() {
        let case = cases().remove(1);
        let bits = |g: &[f32]| g.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&case.run().gradient), bits(&case.run().gradient));
    }
}
