//! Ends an optimizer step and begins the next minibatch, in one dispatch.
//!
//! Working weights from the new master weights ([`crate::nn::fold`]). Beside that, one workgroup takes over the optimizer state that
//! [`super::adamw`] computed, moves the loss scale ([`super::loss_scale`]), and begins the minibatch of an entry of the table of
//! [`Epoch`]s, if it begins one. That minibatch's statistics must be known: those of a shuffled epoch's first are computed later, so
//! [`super::epoch`] begins it.

use super::epoch::Epoch;
use super::loss_scale::LossScale;
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Command, Gpu, Kernel, Shader, Variant};
use crate::nn::{KernelConfig, Layout, fold};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/end_step");

/// Counterpart of `EndStep` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct EndStep {
    /// Networks.
    pub nets: u32,
    /// Good steps in a row before the loss scale grows; 0: it stays.
    pub interval: f32,
    /// Factor on the loss scale when it grows.
    pub growth: f32,
    /// Factor on the loss scale after a step whose gradient was not finite.
    pub backoff: f32,
}

impl EndStep {
    /// The end of a step of `nets` networks.
    #[must_use]
    pub fn new(nets: u32, scale: &LossScale) -> Self {
        let LossScale { growth, backoff, interval } = *scale;
        Self { nets, interval: interval as f32, growth, backoff }
    }
}

/// The variant for this configuration.
#[must_use]
pub fn variant(class: Class, kernel_config: &KernelConfig) -> Variant {
    fold::variant(class, kernel_config)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let begins = [(0, DynamicUniform), (1, Write), (2, Read), (3, Read)];
    let access = [&begins[..], &fold::ACCESS, &[(8, Uniform), (9, Read), (10, Write)]].concat();
    let variant = variant(gpu.class(), kernel_config);
    Kernel::trusted_at(gpu, &SHADER, variant, &access, size_of::<Epoch>())
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Epoch`].
    pub epochs: &'a wgpu::Buffer,
    /// [`super::scalars`].
    pub scalars: &'a wgpu::Buffer,
    /// Partial sums of the losses.
    pub statistics: &'a wgpu::Buffer,
    /// Iteration.
    pub iteration: &'a wgpu::Buffer,
    /// Two [`crate::nn::layout::NetworkStack`]s.
    pub stacks: &'a wgpu::Buffer,
    /// Networks ([`fold::NetworkSlice`]).
    pub nets: &'a wgpu::Buffer,
    /// Master weights.
    pub params: &'a wgpu::Buffer,
    /// Working weights ([`crate::nn::WorkingWeights::buffer`]).
    pub working: &'a wgpu::Buffer,
    /// The optimizer state after the step, which [`super::adamw`] wrote.
    pub step: &'a wgpu::Buffer,
    /// Optimizer state.
    pub optimizer: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, parameters: &EndStep, buffers: Buffers<'_>) -> Result<BindGroup> {
    let uniform = gpu.uniform("end of a step", parameters)?;
    let Buffers { epochs, scalars, statistics, iteration, stacks, nets, params, working, step, optimizer } =
        buffers;
    let begins = [epochs, scalars, statistics, iteration];
    let folds = [stacks, nets, params, working];
    kernel.bind(gpu, &[&begins[..], &folds, &[&uniform, step, optimizer]].concat())
}

/// The dispatch that begins the minibatch of entry `index` of the table.
#[must_use]
pub fn command(gpu: &Gpu, kernel: &Kernel, group: &BindGroup, layout: &Layout, index: u32) -> Command {
    let [x, y, layers] = fold::groups(gpu.class(), layout);
    Command::dispatch_at(kernel, group, index, gpu.uniform_stride::<Epoch>(), [x, y, 1 + layers])
}
