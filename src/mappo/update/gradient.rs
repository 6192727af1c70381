//! The gradient of a micro-batch: forward pass, losses, backward pass and gradients of the weights, which are added to the partial sums of
//! its minibatch. Either in one dispatch, for networks whose layers fit in workgroup memory, or in one for each.

use crate::Result;
use crate::gpu::{BindGroup, Command, Kernel};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::config::Algorithm;
use crate::mappo::rollout::Rollout;
use crate::mappo::setup::Setup;
use crate::nn::{Batch, backward, forward, weight_gradient};
use crate::ppo::{gae, gradient, loss};

/// A compiled kernel with its buffers.
type Bound = (Kernel, BindGroup);

/// The compiled kernels with their buffers, the same for all micro-batches.
pub struct GradientKernels {
    /// Forward pass and losses; absent where [`Passes::Fused`] needs neither by itself.
    losses: Option<(forward::Pass, Bound)>,
    passes: Passes,
    stride: u32,
}

/// The kernels of the gradient.
enum Passes {
    /// By [`gradient`].
    Fused(Box<Fused>),
    /// By one kernel after the other, with activations and their gradients in buffers.
    Separate(Box<Separate>),
}

/// The kernels of [`Passes::Fused`].
struct Fused {
    gradient: Bound,
    groups: [u32; 3],
}

/// The kernels of [`Passes::Separate`] after the losses.
struct Separate {
    backward: backward::Pass,
    weights: Bound,
    tiles: u32,
    splits: u32,
}

impl GradientKernels {
    /// Compiles and binds the kernels. `table` holds the [`Batch`] of every micro-batch.
    pub fn new(
        setup: Setup<'_>,
        update: &UpdateBuffers,
        rollout: &Rollout,
        table: &wgpu::Buffer,
    ) -> Result<Self> {
        let Setup { gpu, kernel_config, .. } = setup;
        let losses = match &update.activation_gradients {
            Some(grads) => Some((forward_pass(setup, rollout, table)?, losses(setup, update, grads, table)?)),
            None => None,
        };
        let passes = match (kernel_config.blocks, &update.activation_gradients) {
            (None, Some(grads)) => separate(setup, update, grads, rollout, table)?,
            _ => fused(setup, update, rollout, table)?,
        };
        let stride = gpu.uniform_stride::<Batch>();
        Ok(Self { losses, passes, stride })
    }

    /// Adds the gradient of micro-batch `index` to the partial sums of its minibatch.
    pub fn gradient(&self, index: u32, batch: &Batch) -> Vec<Command> {
        match &self.passes {
            Passes::Fused(all) => vec![self.at(&all.gradient, index, all.groups)],
            Passes::Separate(each) => {
                let mut commands = self.losses(index, batch);
                commands.extend(each.backward.commands(index, batch));
                commands.push(self.at(
                    &each.weights,
                    index,
                    weight_gradient::groups(each.tiles, each.splits),
                ));
                commands
            }
        }
    }

    /// Only the forward pass and the losses of micro-batch `index`. With HAPPO and
    /// [`update_factors`](crate::nn::LossPart::update_factors) they keep the agent's log-probabilities before its epochs, or multiply
    /// the factors of later agents by its probability ratios.
    pub fn losses(&self, index: u32, batch: &Batch) -> Vec<Command> {
        self.losses.iter().fold(Vec::new(), |mut commands, (forward, loss)| {
            commands.extend(forward.commands(index, batch, 2));
            commands.push(self.at(loss, index, loss::groups(&loss.0.variant, batch.rows)));
            commands
        })
    }

    fn at(&self, (kernel, group): &Bound, index: u32, grid: [u32; 3]) -> Command {
        Command::dispatch_at(kernel, group, index, self.stride, grid)
    }
}

fn forward_pass(setup: Setup<'_>, rollout: &Rollout, table: &wgpu::Buffer) -> Result<forward::Pass> {
    let Setup { gpu, buffers, .. } = setup;
    let networks = &buffers.networks;
    let bound = forward::Buffers {
        batches: table,
        stacks: &rollout.stacks,
        weights: &rollout.weights,
        observations: &buffers.rollout.observations,
        acts: &networks.activations,
        head: &networks.heads,
        layer_norm_stats: &networks.layer_norm_stats,
        dones_and_masks: &buffers.rollout.dones_and_masks,
        memory: buffers.memory(),
    };
    rollout.forward.bind(gpu, bound)
}

/// Partial sums of the gradients: of the workgroups in blocks, or of the splits of a micro-batch's rows.
pub fn partial_sums(setup: Setup<'_>) -> u32 {
    let Setup { sizes, layout, kernel_config, .. } = setup;
    let quads = u64::from(sizes.micro_quads());
    match kernel_config.blocks {
        Some(blocks) => blocks.partial_sums(quads),
        None => weight_gradient::splits(
            kernel_config,
            weight_gradient::tiles(layout, kernel_config).len() as u32,
            quads,
        ),
    }
}

fn fused(
    setup: Setup<'_>,
    update: &UpdateBuffers,
    rollout: &Rollout,
    table: &wgpu::Buffer,
) -> Result<Passes> {
    let Setup { gpu, config, sizes, layout, kernel_config, buffers } = setup;
    let happo = config.ppo.algorithm == Algorithm::Happo;
    let kernel = gradient::kernel(gpu, kernel_config, &layout.shape, sizes.kind, happo)?;
    let transitions = &buffers.rollout;
    let bound = gradient::Buffers {
        batches: table,
        stacks: &rollout.stacks,
        weights: &rollout.weights,
        acts: &buffers.networks.activations,
        layer_norm_stats: &buffers.networks.layer_norm_stats,
        partials: &update.partial_gradients,
        dones_and_masks: &transitions.dones_and_masks,
        observations: &transitions.observations,
        actions: transitions.draws.as_ref().unwrap_or(&transitions.actions),
        targets: &transitions.targets,
        values: &transitions.values,
        scalars: &transitions.scalars,
        statistics: &update.statistics,
    };
    let parameters = loss_parameters(setup);
    let group = gradient::bind(gpu, &kernel, &parameters, bound)?;
    Ok(Passes::Fused(Box::new(Fused { gradient: (kernel, group), groups: gradient::groups(&parameters) })))
}

fn separate(
    setup: Setup<'_>,
    update: &UpdateBuffers,
    grads: &wgpu::Buffer,
    rollout: &Rollout,
    table: &wgpu::Buffer,
) -> Result<Passes> {
    let Setup { gpu, layout, kernel_config, buffers, .. } = setup;
    let networks = &buffers.networks;
    let (acts, layer_norm_stats) = (&networks.activations, &networks.layer_norm_stats);
    let dones_and_masks = &buffers.rollout.dones_and_masks;
    let kernels = backward::Kernels::new(gpu, &layout.shape, kernel_config)?;
    let bound = backward::Buffers {
        batches: table,
        stacks: &rollout.stacks,
        weights: &rollout.weights,
        acts,
        layer_norm_stats,
        grads,
        dones_and_masks: buffers.memory().map(|_| dones_and_masks),
    };
    let backward = kernels.bind(gpu, bound)?;

    let tiles = weight_gradient::tiles(layout, kernel_config);
    let count = tiles.len() as u32;
    let splits = partial_sums(setup);
    let split = weight_gradient::Split { count: splits, stride: layout.params, tiles: count, pad: 0 };
    let kernel = weight_gradient::kernel(gpu, kernel_config)?;
    let bound = weight_gradient::Buffers {
        batches: table,
        split: &gpu.uniform("split", &split)?,
        tiles: &gpu.upload("tiles", &tiles)?,
        observations: &buffers.rollout.observations,
        acts,
        layer_norm_stats,
        grads,
        dones_and_masks,
        partials: &update.partial_gradients,
    };
    let group = weight_gradient::bind(gpu, &kernel, bound)?;
    Ok(Passes::Separate(Box::new(Separate { backward, weights: (kernel, group), tiles: count, splits })))
}

fn loss_parameters(setup: Setup<'_>) -> loss::Loss {
    let Setup { config, sizes, layout, kernel_config, .. } = setup;
    let agent_steps = config.ppo.agent_steps(sizes.spec.agents);
    loss::Loss {
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
        parameters: layout.params,
        partial_sums: kernel_config.blocks.map_or(0, |_| partial_sums(setup)),
    }
}

fn losses(
    setup: Setup<'_>,
    update: &UpdateBuffers,
    grads: &wgpu::Buffer,
    table: &wgpu::Buffer,
) -> Result<Bound> {
    let Setup { gpu, config, sizes, kernel_config, buffers, .. } = setup;
    let parameters = loss_parameters(setup);
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
        grads,
        statistics: &update.statistics,
    };
    let group = loss::bind(gpu, &kernel, &parameters, bound)?;
    Ok((kernel, group))
}
