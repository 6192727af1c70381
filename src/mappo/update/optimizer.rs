//! The optimizer step, from the partial sums of the gradients to the new working weights and the next minibatch: three dispatches.

use super::gradient;
use crate::Result;
use crate::gpu::{BindGroup, Command, Kernel, Recording};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::rollout::Rollout;
use crate::mappo::setup::Setup;
use crate::nn::{Precision, reduce};
use crate::ppo::adamw::{self, AdamW};
use crate::ppo::end_step::{self, EndStep};
use crate::ppo::epoch::{self, Epoch};
use crate::ppo::loss_scale::LossScale;

/// The recorded kernels of all optimizer steps.
pub struct Optimizer<'a> {
    setup: Setup<'a>,
    update: &'a UpdateBuffers,
    rollout: &'a Rollout,
    begin: (Kernel, BindGroup),
    sum: Command,
    end: (Kernel, BindGroup),
}

impl<'a> Optimizer<'a> {
    /// Compiles and binds the kernels. `starts` are the minibatches, by number.
    pub fn new(
        setup: Setup<'a>,
        update: &'a UpdateBuffers,
        rollout: &'a Rollout,
        starts: &[Epoch],
    ) -> Result<Self> {
        let Setup { gpu, config, layout, kernel_config, buffers, .. } = setup;
        let transitions = &buffers.rollout;
        let epochs = &gpu.uniform_table("epochs", starts)?;
        let (scalars, statistics, iteration) =
            (&transitions.scalars, &update.statistics, &transitions.iteration);
        let begin = epoch::kernel(gpu)?;
        let begin_group = epoch::bind(gpu, &begin, [epochs, scalars, statistics, iteration])?;

        let params = &buffers.networks.params;
        let summed = [params, &update.partial_gradients, &update.gradient, &update.step];
        let squares = adamw::state_words(layout.nets.len()) as u32;
        let sum = reduce::command(gpu, layout, gradient::partial_sums(setup), squares, summed)?;

        let scale = match config.device.precision {
            Precision::F32 => LossScale::CONSTANT,
            Precision::F16 => LossScale::DYNAMIC,
        };
        let end = end_step::kernel(gpu, kernel_config)?;
        let bound = end_step::Buffers {
            epochs,
            scalars,
            statistics,
            iteration,
            stacks: &rollout.stacks,
            nets: rollout.weights.nets(),
            params,
            working: rollout.weights.buffer(),
            step: &update.step,
            optimizer: &update.optimizer,
        };
        let parameters = EndStep::new(layout.nets.len() as u32, &scale);
        let end_group = end_step::bind(gpu, &end, &parameters, bound)?;
        Ok(Self { setup, update, rollout, begin: (begin, begin_group), sum, end: (end, end_group) })
    }

    /// Begins minibatch `number`, where the step before cannot.
    pub fn begin(&self, number: u32) -> Command {
        let (kernel, group) = &self.begin;
        Command::dispatch_at(kernel, group, number, self.setup.gpu.uniform_stride::<Epoch>(), epoch::GROUPS)
    }

    /// Applies the gradient with AdamW. `agent` is the agent to update, counted from 1; 0: all agents.
    pub fn adamw(&self, agent: u32) -> Result<Command> {
        let Setup { gpu, config, layout, buffers, .. } = self.setup;
        let optimizer = &config.optimizer;
        let betas = [optimizer.adam_beta1, optimizer.adam_beta2];
        let parameters = AdamW {
            max_norm: optimizer.max_grad_norm as f32,
            actor_rate: optimizer.actor_learning_rate as f32,
            critic_rate: optimizer.critic_learning_rate as f32,
            agent_step: agent,
            squares: adamw::state_words(layout.nets.len()) as u32,
            ..AdamW::new(betas, optimizer.adam_epsilon, optimizer.weight_decay)
        };
        let kernel = adamw::kernel(gpu)?;
        let update = self.update;
        let bound = adamw::Buffers {
            nets: self.rollout.weights.nets(),
            optimizer: &update.optimizer,
            step: &update.step,
            gradient: &update.gradient,
            first: &update.first_moments,
            second: &update.second_moments,
            params: &buffers.networks.params,
            scalars: &buffers.rollout.scalars,
        };
        let group = adamw::bind(gpu, &kernel, &parameters, bound)?;
        let longest = layout.nets.iter().map(|net| net.length).max().unwrap_or(0);
        let grid = adamw::groups(gpu.class(), longest, layout.nets.len() as u32);
        Ok(Command::dispatch(&kernel, &group, grid))
    }

    /// A whole step with `adamw`, after which minibatch `next` begins.
    pub fn step(&self, adamw: &Command, next: u32) -> Recording {
        let Setup { gpu, layout, .. } = self.setup;
        let (kernel, group) = &self.end;
        let end = end_step::command(gpu, kernel, group, layout, next);
        let mut commands = vec![self.sum.clone(), adamw.clone()];
        commands.extend(self.rollout.weights.refresh_by(end));
        commands
    }
}
