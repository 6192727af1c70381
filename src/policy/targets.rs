//! Greedy actions of a policy over a range of candles.

use std::ops::Range;

use ndarray::Array2;

use super::Policy;
use super::acting::Acting;
use crate::env::{Episodes, Trading};
use crate::gpu::Gpu;
use crate::mappo::ActionMode;
use crate::market::MarketData;
use crate::{Error, Result};

/// Steps between two readbacks of actions.
const STEPS: u32 = 256;

impl Policy {
    /// Target positions `[bars - 1][instrument]`: row b is decided after the close of the b-th of `bars` and fills at the
    /// open of the next bar. The policy observes its own positions, so the device processes the bars in order. After a
    /// bankruptcy all rows are 0.
    ///
    /// # Errors
    /// [`Error::Data`] if the policy is not of a market, if the bars cannot be traded or the data has other instruments or features; errors
    /// of the device.
    pub fn targets(&self, gpu: &Gpu, data: &MarketData, bars: &Range<usize>) -> Result<Array2<f64>> {
        let market = self.market()?;
        market.check_scaling(data)?;
        let environment = Trading::new(data, &market.settings, &Episodes::Whole(bars.clone()))?;
        let decisions = bars.len() - 1;
        // Four environments are the minimum; all of them trade the same bars with the same actions.
        let steps = STEPS.min(decisions as u32);
        let acting = Acting::new(gpu, self, &environment, [4, steps], ActionMode::Greedy, 0)?;
        let Acting { sizes, buffers, rollout, mut recorder, .. } = acting;
        let agents = data.instruments();
        let mut targets = Array2::zeros((decisions, agents));
        let mut first = 0;
        let mut bankrupt = false;
        while first < decisions && !bankrupt {
            recorder.run(&rollout.collect)?;
            recorder.run(&rollout.carry)?;
            let actions: Vec<u32> = gpu.read(&buffers.rollout.actions)?;
            let ends: Vec<u32> = gpu.read(&buffers.rollout.dones_and_masks)?;
            let steps = (sizes.steps as usize).min(decisions - first);
            for step in 0..steps {
                if bankrupt {
                    break;
                }
                // After a bankruptcy the environment starts a new episode, but this account stays closed.
                bankrupt = ends[step * sizes.envs as usize] == 1;
                for agent in 0..agents {
                    let action = actions[(step * agents + agent) * sizes.envs as usize];
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
        Ok(targets)
    }
}
