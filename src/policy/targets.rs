//! Greedy decisions of a policy, or of several together, over a range of candles.

use std::ops::Range;

use ndarray::Array2;

use super::ensemble::together::Together;
use super::{Ensemble, Policy};
use crate::env::{Episodes, Trading};
use crate::gpu::Gpu;
use crate::market::MarketData;
use crate::{Error, Result};

/// Steps between two readbacks of actions.
const STEPS: u32 = 256;

/// Greedy decisions over B bars with N instruments, and the rewards for them. After a bankruptcy all rows are 0.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decisions {
    /// Target positions, `[B - 1][N]`: row b is decided after the close of bar b and fills at the open of the next one.
    pub targets: Array2<f64>,
    /// Rewards of the market that the policy was trained in, `[B - 1][N]`: row b is due for the decision of row b at the close of bar
    /// b + 1.
    pub rewards: Array2<f32>,
}

impl Policy {
    /// Target positions `[bars - 1][instrument]`: row b is decided after the close of the b-th of `bars` and fills at the
    /// open of the next bar. The policy observes its own positions, so the device processes the bars in order. After a
    /// bankruptcy all rows are 0.
    ///
    /// # Errors
    /// [`Error::Data`] if the policy is not of a market, if the bars cannot be traded or the data has other instruments or features; errors
    /// of the device.
    pub fn targets(&self, gpu: &Gpu, data: &MarketData, bars: &Range<usize>) -> Result<Array2<f64>> {
        Ok(self.decisions(gpu, data, bars)?.targets)
    }

    /// The same with the rewards.
    ///
    /// # Errors
    /// As [`Policy::targets`].
    pub fn decisions(&self, gpu: &Gpu, data: &MarketData, bars: &Range<usize>) -> Result<Decisions> {
        decisions(gpu, std::slice::from_ref(self), data, bars)
    }
}

impl Ensemble {
    /// Target positions of the policies together, as those of one ([`Policy::targets`]): in one account, which all of them observe.
    ///
    /// # Errors
    /// As [`Policy::targets`]. The features are scaled with the statistics of the first policy.
    pub fn targets(&self, gpu: &Gpu, data: &MarketData, bars: &Range<usize>) -> Result<Array2<f64>> {
        Ok(self.decisions(gpu, data, bars)?.targets)
    }

    /// The same with the rewards.
    ///
    /// # Errors
    /// As [`Policy::targets`].
    pub fn decisions(&self, gpu: &Gpu, data: &MarketData, bars: &Range<usize>) -> Result<Decisions> {
        decisions(gpu, self.members(), data, bars)
    }
}

/// The decisions of policies that fit each other, of which there is at least one.
fn decisions(gpu: &Gpu, policies: &[Policy], data: &MarketData, bars: &Range<usize>) -> Result<Decisions> {
    let first = policies.first().ok_or_else(|| Error::Data("there is no policy".into()))?;
    let market = first.market()?;
    market.check_scaling(data)?;
    let environment = Trading::new(data, &market.settings, &Episodes::Whole(bars.clone()))?;
    let count = bars.len() - 1;
    // Four environments are the minimum; all of them trade the same bars with the same actions.
    let steps = STEPS.min(count as u32);
    let Together { lead, collect, carry, .. } = &mut Together::new(gpu, policies, &environment, [4, steps])?;
    let agents = data.instruments();
    let mut targets = Array2::zeros((count, agents));
    let mut rewards = Array2::zeros((count, agents));
    let mut first = 0;
    let mut bankrupt = false;
    while first < count && !bankrupt {
        lead.recorder.run(collect)?;
        lead.recorder.run(carry)?;
        let actions: Vec<u32> = gpu.read(&lead.buffers.rollout.actions)?;
        let earned: Vec<f32> = gpu.read(&lead.buffers.rollout.rewards)?;
        let ends: Vec<u32> = gpu.read(&lead.buffers.rollout.dones_and_masks)?;
        let steps = (lead.sizes.steps as usize).min(count - first);
        let envs = lead.sizes.envs as usize;
        for step in 0..steps {
            if bankrupt {
                break;
            }
            // After a bankruptcy the environment starts a new episode, but this account stays closed.
            bankrupt = ends[step * envs] == 1;
            for agent in 0..agents {
                let place = (step * agents + agent) * envs;
                rewards[[first + step, agent]] = earned[place];
                let action = actions[place];
                targets[[first + step, agent]] = market.settings.level(action).ok_or_else(|| {
                    let symbol = &data.scaling().symbols[agent];
                    Error::Data(match market.settings.continuous() {
                        true => format!("the policy's weight for {symbol} is {}", f32::from_bits(action)),
                        false => {
                            format!("the policy chose action {action} for {symbol}, which does not exist")
                        }
                    })
                })?;
            }
        }
        first += steps;
    }
    Ok(Decisions { targets, rewards })
}
