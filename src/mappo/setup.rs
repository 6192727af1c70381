//! The common inputs of all recordings of a run.

use super::Config;
use super::buffers::Buffers;
use super::sizes::Sizes;
use crate::gpu::Gpu;
use crate::nn::{Batch, KernelConfig, Layout, RecurrentPart};

/// Device, settings, sizes and buffers of a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub gpu: &'a Gpu,
    pub config: &'a Config,
    pub sizes: &'a Sizes,
    pub layout: &'a Layout,
    pub kernel_config: &'a KernelConfig,
    pub buffers: &'a Buffers,
}

impl Setup<'_> {
    /// The parameters shared by all batches of the run, whose slots are consecutive.
    pub fn batch(&self) -> Batch {
        let sizes = self.sizes;
        Batch {
            stride: sizes.room(self.kernel_config),
            acts: self.layout.act_rows,
            grads: self.layout.grad_rows,
            agents: sizes.spec.agents,
            quads: sizes.envs / 4,
            obs_dim: sizes.spec.obs_dim,
            first_state: (sizes.first_state() / 4) as u32,
            state_dim: sizes.state_dim,
            recurrent: RecurrentPart {
                length: sizes.chunk,
                chunk: sizes.chunk,
                steps: sizes.steps,
                truncations: sizes.truncations,
                endings: (sizes.endings() / 4) as u32,
                ..RecurrentPart::default()
            },
            ..Batch::default()
        }
    }
}
