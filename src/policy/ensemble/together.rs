//! Several policies on the device, recorded to act together in one market.
//!
//! Every policy has buffers and a copy of the market of its own. In every step all of them compute their outputs, the mean replaces the
//! outputs of the first, and the action that is drawn from it goes to the other copies, which stay the same account to the last bit.

use super::weight;
use crate::Result;
use crate::env::Environment;
use crate::gpu::{Command, Gpu, Kernel, Recording};
use crate::mappo::rollout::Step;
use crate::policy::Policy;
use crate::policy::acting::Acting;
use crate::ppo::ensemble;

/// The recorded rollout of several policies.
#[derive(Debug)]
pub struct Together {
    /// The first policy, whose buffers hold the actions and the ends of episodes.
    pub lead: Acting,
    /// The steps of all policies.
    pub collect: Recording,
    /// Goes on to the next rollout.
    pub carry: Recording,
    /// Keeps the buffers of the others.
    _others: Vec<Acting>,
}

impl Together {
    /// `environments` play rollouts of `steps` steps with greedy actions. There is at least one policy, and all fit the first
    /// ([`super::Ensemble::new`]).
    pub fn new(
        gpu: &Gpu,
        policies: &[Policy],
        environment: &dyn Environment,
        sizes: [u32; 2],
    ) -> Result<Self> {
        let (first, rest) = policies.split_first().ok_or_else(super::none)?;
        let (lead, steps) = Acting::in_steps(gpu, first, environment, sizes)?;
        let mut others = Vec::new();
        let mut parts = Vec::new();
        for policy in rest {
            let (acting, steps) = Acting::in_steps(gpu, policy, environment, sizes)?;
            others.push(acting);
            parts.push(steps.into_iter());
        }
        let means = means(gpu, &lead, &others)?;
        let words = u64::from(lead.sizes.kind.words(lead.sizes.spec.actions));
        let bytes = u64::from(lead.sizes.rows_of_slot()) * words * 4;
        let actions = |acting: &Acting| acting.buffers.rollout.actions.clone();
        let mut collect = Recording::new();
        for (index, Step { forward, sample, environment }) in (0..).zip(steps) {
            let own: Vec<_> = parts.iter_mut().filter_map(Iterator::next).collect();
            collect.extend(forward);
            let mut environments = environment;
            for Step { forward, environment, .. } in own {
                collect.extend(forward);
                environments.extend(environment);
            }
            collect.extend(means.iter().cloned());
            collect.push(sample);
            collect.extend(others.iter().map(|other| Command::Copy {
                source: actions(&lead),
                source_offset: index * bytes,
                target: actions(other),
                target_offset: index * bytes,
                bytes,
            }));
            collect.extend(environments);
        }
        let all = std::iter::once(&lead).chain(&others);
        let carry = all.flat_map(|acting| acting.rollout.carry.iter().cloned()).collect();
        Ok(Self { lead, collect, carry, _others: others })
    }
}

/// Makes the outputs of `lead` the mean of all.
fn means(gpu: &Gpu, lead: &Acting, others: &[Acting]) -> Result<Recording> {
    if others.is_empty() {
        return Ok(Recording::new());
    }
    let stride = |acting: &Acting| acting.sizes.room(&acting.kernel_config);
    let parameters = |(index, other): (usize, &Acting)| ensemble::Ensemble {
        rows: lead.sizes.rows_of_slot() / 4,
        outputs: lead.sizes.outputs(),
        stride: stride(lead),
        other_stride: stride(other),
        weight: weight(index + 1),
        ..ensemble::Ensemble::default()
    };
    let all: Vec<_> = others.iter().enumerate().map(parameters).collect();
    let table = gpu.uniform_table("ensemble", &all)?;
    let kernel: Kernel = ensemble::kernel(gpu)?;
    let heads = |acting: &Acting| acting.buffers.networks.heads.clone();
    let mut commands = Recording::new();
    for (index, (other, parameters)) in (0..).zip(others.iter().zip(&all)) {
        let group = ensemble::bind(gpu, &kernel, [&table, &heads(other), &heads(lead)])?;
        let grid = ensemble::groups(&kernel.variant, parameters);
        let stride = gpu.uniform_stride::<ensemble::Ensemble>();
        commands.push(Command::dispatch_at(&kernel, &group, index, stride, grid));
    }
    Ok(commands)
}
