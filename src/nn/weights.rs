//! The working weights that the kernels multiply with, computed from the master weights after every optimizer step.

use super::fold;
use super::kernel_config::{KernelConfig, TEXTURE_ROW, texture_rows};
use super::layout::Layout;

use crate::Result;
use crate::gpu::{Command, Gpu, Plan, Recording, Resource};

/// A buffer or a texture of working weights, with the recording that updates it.
#[derive(Clone, Debug)]
pub struct WorkingWeights {
    buffer: wgpu::Buffer,
    texture: Option<wgpu::TextureView>,
    nets: wgpu::Buffer,
    refresh: Recording,
    /// The commands after the dispatch that computes them.
    copies: Recording,
}

impl WorkingWeights {
    /// Size of the buffer `working weights` that [`WorkingWeights::new`] takes.
    #[must_use]
    pub fn plan(layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Plan::new();
        if kernel_config.texture() {
            // The source of the copy to the texture: whole rows in f32.
            plan.words("working weights", texture_vec4s(layout) * 4);
        } else {
            plan.bytes_of(
                "working weights",
                u64::from(layout.working) * 4 * kernel_config.storage.precision().bytes(),
            );
        }
        plan
    }

    /// Sizes of the buffers that [`WorkingWeights::new`] allocates itself.
    #[must_use]
    pub fn own_plan(layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Plan::new();
        plan.words("networks", layout.nets.len() as u64 * 8);
        if kernel_config.texture() {
            plan.words("texture of working weights", texture_vec4s(layout) * 4);
        }
        plan
    }

    /// Records the update of `working`, a buffer of [`WorkingWeights::plan`], from `params`. The working weights are undefined
    /// until [`WorkingWeights::refresh`] runs.
    ///
    /// # Errors
    /// Errors of compilation and allocation.
    pub fn new(
        gpu: &Gpu,
        layout: &Layout,
        kernel_config: &KernelConfig,
        stacks: &wgpu::Buffer,
        params: &wgpu::Buffer,
        working: &wgpu::Buffer,
    ) -> Result<Self> {
        let nets = gpu.upload("networks", &fold::nets(layout))?;
        let kernel = fold::kernel(gpu, kernel_config)?;
        let group = kernel.bind(gpu, &[stacks, &nets, params, working])?;
        let dispatch = Command::dispatch(&kernel, &group, fold::groups(gpu.class(), layout));
        let mut copies = Recording::new();
        let mut texture = None;
        if kernel_config.texture() {
            let height = texture_rows(layout.working);
            let size = wgpu::Extent3d { width: TEXTURE_ROW, height, depth_or_array_layers: 1 };
            let target = gpu.texture("working weights", size, wgpu::TextureFormat::Rgba32Float)?;
            texture = Some(target.create_view(&wgpu::TextureViewDescriptor::default()));
            copies.push(Command::Fill { source: working.clone(), target });
        }
        let refresh = [vec![dispatch], copies.clone()].concat();
        Ok(Self { buffer: working.clone(), texture, nets, refresh, copies })
    }

    /// Updates the working weights from the master weights: one dispatch, and one copy where they are in a texture.
    #[must_use]
    pub fn refresh(&self) -> &Recording {
        &self.refresh
    }

    /// The update by a dispatch of another kernel that writes [`WorkingWeights::buffer`].
    #[must_use]
    pub fn refresh_by(&self, dispatch: Command) -> Recording {
        [vec![dispatch], self.copies.clone()].concat()
    }

    /// The networks, as [`fold`] has them.
    #[must_use]
    pub fn nets(&self) -> &wgpu::Buffer {
        &self.nets
    }

    /// The buffer that kernels write; they read [`WorkingWeights::resource`].
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub fn resource(&self) -> Resource<'_> {
        match &self.texture {
            Some(view) => Resource::Texture(view),
            None => Resource::Buffer(&self.buffer),
        }
    }
}

fn texture_vec4s(layout: &Layout) -> u64 {
    u64::from(texture_rows(layout.working)) * u64::from(TEXTURE_ROW)
}
