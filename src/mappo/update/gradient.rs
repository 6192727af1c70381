//! The gradient of a micro-batch: forward pass, losses, backward pass, gradients of the weights, and their sum.

use crate::Result;
use crate::gpu::{BindGroup, Command, Kernel};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::config::Algorithm;
use crate::mappo::rollout::Rollout;
use crate::mappo::setup::Setup;
use crate::nn::{Batch, KernelConfig, backward, forward, reduce, weight_gradient};
use crate::ppo::{gae, loss};

/// The compiled kernels with their buffers, the same for all micro-batches.
pub struct GradientKernels {
    forward: (Kernel, BindGroup),
    loss: (Kernel, BindGroup),
    backward: (Kernel, BindGroup),
    weights: (Kernel, BindGroup),
    /// Starts the gradient sum of a minibatch.
    first: (Kernel, BindGroup),
    /// Adds to the gradient sum.
    further: (Kernel, BindGroup),
    stride: u32,
    tiles: u32,
    splits: u32,
    params: u32,
    kernel_config: KernelConfig,
}

impl GradientKernels {
    /// Compiles and binds the kernels. `table` holds the [`Batch`] of every micro-batch.
    pub fn new(
        setup: Setup<'_>,
        update: &UpdateBuffers,
        rollout: &Rollout,
        table: &wgpu::Buffer,
    ) -> Result<Self> {
        let Setup { gpu, sizes, layout, kernel_config, buffers, .. } = setup;
        let networks = &buffers.networks;
        let (observations, dones_and_masks) =
            (&buffers.rollout.observations, &buffers.rollout.dones_and_masks);
        let (acts, layer_norm_stats) = (&networks.activations, &networks.layer_norm_stats);
        let (grads, memory) = (&update.activation_gradients, buffers.memory());
        let (stacks, weights) = (&rollout.stacks, &rollout.weights);
        let forward_kernel = rollout.forward.clone();
        let bound = forward::Buffers {
            batches: table,
            stacks,
            weights,
            observations,
            acts,
            head: &networks.heads,
            layer_norm_stats,
            dones_and_masks,
            memory,
        };
        let forward_group = forward::bind(gpu, &forward_kernel, bound)?;
        let backward_kernel = backward::kernel(gpu, &layout.shape, kernel_config)?;
        let bound = backward::Buffers {
            batches: table,
            stacks,
            weights,
            acts,
            layer_norm_stats,
            grads,
            dones_and_masks: memory.map(|_| dones_and_masks),
        };
        let backward_group = backward::bind(gpu, &backward_kernel, bound)?;

        let tiles = weight_gradient::tiles(layout, kernel_config);
        let splits =
            weight_gradient::splits(kernel_config, tiles.len() as u32, u64::from(sizes.micro_quads()));
        let split = weight_gradient::Split {
            count: splits,
            stride: layout.params,
            tiles: tiles.len() as u32,
            pad: 0,
        };
        let weights_kernel = weight_gradient::kernel(gpu, kernel_config)?;
        let bound = weight_gradient::Buffers {
            batches: table,
            split: &gpu.uniform("split", &split)?,
            tiles: &gpu.upload("tiles", &tiles)?,
            observations,
            acts,
            layer_norm_stats,
            grads,
            dones_and_masks,
            partials: &update.partial_gradients,
        };
        let weights_group = weight_gradient::bind(gpu, &weights_kernel, bound)?;
        let reduce_kernel = reduce::kernel(gpu)?;
        let reduced = |first| {
            let parameters = reduce::Reduce { length: layout.params, splits, first, pad: 0 };
            let (partials, sums) = (&update.partial_gradients, &update.folded_gradient);
            reduce::bind(gpu, &reduce_kernel, &parameters, partials, sums)
        };
        Ok(Self {
            forward: (forward_kernel, forward_group),
            loss: losses(setup, update, table)?,
            backward: (backward_kernel, backward_group),
            weights: (weights_kernel, weights_group),
            first: (reduce_kernel.clone(), reduced(1)?),
            further: (reduce_kernel.clone(), reduced(0)?),
            stride: gpu.uniform_stride::<Batch>(),
            tiles: tiles.len() as u32,
            splits,
            params: layout.params,
            kernel_config: *kernel_config,
        })
    }

    /// Adds the gradient of micro-batch `index` to the sum; with `first`, replaces the sum.
    pub fn gradient(&self, index: u32, batch: &Batch, first: bool) -> [Command; 5] {
        let [forward, loss] = self.losses(index, batch);
        let (reduce_kernel, reduce_group) = if first { &self.first } else { &self.further };
        let reduced = reduce::groups(&reduce_kernel.variant, self.params);
        [
            forward,
            loss,
            self.at(&self.backward, index, forward::groups(&self.kernel_config, batch, 2)),
            self.at(&self.weights, index, weight_gradient::groups(self.tiles, self.splits)),
            Command::dispatch(reduce_kernel, reduce_group, reduced),
        ]
    }

    /// Only the forward pass and the losses of micro-batch `index`. With HAPPO and
    /// [`update_factors`](crate::nn::LossPart::update_factors) they keep the agent's log-probabilities before its epochs, or multiply
    /// the factors of later agents by its probability ratios.
    pub fn losses(&self, index: u32, batch: &Batch) -> [Command; 2] {
        [
            self.at(&self.forward, index, forward::groups(&self.kernel_config, batch, 2)),
            self.at(&self.loss, index, loss::groups(&self.loss.0.variant, batch.rows)),
        ]
    }

    fn at(&self, (kernel, group): &(Kernel, BindGroup), index: u32, grid: [u32; 3]) -> Command {
        Command::dispatch_at(kernel, group, index, self.stride, grid)
    }
}

fn losses(setup: Setup<'_>, update: &UpdateBuffers, table: &wgpu::Buffer) -> Result<(Kernel, BindGroup)> {
    let Setup { gpu, config, sizes, layout, kernel_config, buffers } = setup;
    let agent_steps = config.ppo.agent_steps(sizes.spec.agents);
    let parameters = loss::Loss {
        actions: sizes.spec.actions,
        section: sizes.rows() / 4,
        masks: sizes.first_mask() / 4,
        grad_actor: layout.head_gradient(0),
        grad_critic: layout.head_gradient(1),
        clip: config.ppo.clip as f32,
        value_clip: config.ppo.value_clip as f32,
        huber: config.ppo.huber_delta as f32,
        value: config.ppo.value_coefficient as f32,
        starts: sizes.starts,
        // The factors follow the partial sums, which are two vec4s each.
        factors: 2 * sizes.partial_sums(kernel_config) * config.ppo.epochs * agent_steps,
        choices: sizes.choices,
        choice_targets: gae::choice_targets(sizes.rows()),
        groups: sizes.groups,
        pad: [0; 2],
    };
    let kernel = loss::kernel(gpu, kernel_config, sizes.kind, config.ppo.algorithm == Algorithm::Happo)?;
    let rollout = &buffers.rollout;
    let bound = loss::Buffers {
        batches: table,
        head: &buffers.networks.heads,
        dones_and_masks: &rollout.dones_and_masks,
        actions: rollout.draws.as_ref().unwrap_or(&rollout.actions),
        targets: &rollout.targets,
        values: &rollout.values,
        scalars: &rollout.scalars,
        grads: &update.activation_gradients,
        statistics: &update.statistics,
    };
    let group = loss::bind(gpu, &kernel, &parameters, bound)?;
    Ok((kernel, group))
}
