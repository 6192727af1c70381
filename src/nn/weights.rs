//! The working weights: what the kernels multiply with, made anew from the master weights after every optimizer step.

use super::fold;
use super::kernel_config::{KernelConfig, TEXTURE_ROW, texture_rows};
use super::layout::Layout;

use crate::Result;
use crate::gpu::{Command, Gpu, Plan, Recording, Resource};

/// A buffer of working weights, or a texture of them, with the work that brings them up to date.
#[derive(Clone, Debug)]
pub struct WorkingWeights {
    buffer: wgpu::Buffer,
    texture: Option<wgpu::TextureView>,
    nets: wgpu::Buffer,
    refresh: Recording,
}

impl WorkingWeights {
    /// The buffer that [`WorkingWeights::new`] wants, as `working weights`.
    #[must_use]
    pub fn plan(layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Plan::new();
        if kernel_config.texture() {
            // Whole rows of the texture, in f32.
            plan.words("working weights", texture_vec4s(layout) * 4);
        } else {
            plan.bytes_of(
                "working weights",
                u64::from(layout.working) * 4 * kernel_config.storage.precision().bytes(),
            );
        }
        plan
    }

    /// What it allocates itself.
    #[must_use]
    pub fn own_plan(layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Plan::new();
        plan.words("networks", layout.nets.len() as u64 * 4);
        if kernel_config.texture() {
            plan.words("texture of working weights", texture_vec4s(layout) * 4);
        }
        plan
    }

    /// Records the way from `params` to `working`, a buffer of [`WorkingWeights::plan`]. They hold nothing before
    /// [`WorkingWeights::refresh`] has run.
    ///
    /// # Errors
    /// What compilation and allocation report.
    pub fn new(
        gpu: &Gpu,
        layout: &Layout,
        kernel_config: &KernelConfig,
        roles: &wgpu::Buffer,
        params: &wgpu::Buffer,
        working: &wgpu::Buffer,
    ) -> Result<Self> {
        let nets = gpu.upload("networks", &fold::nets(layout))?;
        let kernel = fold::kernel(gpu, kernel_config)?;
        let group = kernel.bind(gpu, &[roles, &nets, params, working])?;
        let mut refresh = vec![Command::dispatch(&kernel, &group, fold::groups(&kernel.variant, layout))];
        let mut texture = None;
        if kernel_config.texture() {
            let height = texture_rows(layout.working);
            let size = wgpu::Extent3d { width: TEXTURE_ROW, height, depth_or_array_layers: 1 };
            let target = gpu.texture("working weights", size, wgpu::TextureFormat::Rgba32Float)?;
            texture = Some(target.create_view(&wgpu::TextureViewDescriptor::default()));
            refresh.push(Command::Fill { source: working.clone(), target });
        }
        Ok(Self { buffer: working.clone(), texture, nets, refresh })
    }

    /// Brings the working weights up to date with the master weights: one dispatch, and for a texture one copy.
    #[must_use]
    pub fn refresh(&self) -> &Recording {
        &self.refresh
    }

    /// The networks, as [`fold`] and [`super::unfold`] read them.
    #[must_use]
    pub fn nets(&self) -> &wgpu::Buffer {
        &self.nets
    }

    pub(super) fn resource(&self) -> Resource<'_> {
        match &self.texture {
            Some(view) => Resource::Texture(view),
            None => Resource::Buffer(&self.buffer),
        }
    }
}

fn texture_vec4s(layout: &Layout) -> u64 {
    u64::from(texture_rows(layout.working)) * u64::from(TEXTURE_ROW)
}
