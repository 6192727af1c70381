//! Observations of a market policy on candles, for the calibration of an export.

use std::ops::Range;

use super::Policy;
use crate::env::ledger::{Ledger, NextBar};
use crate::gpu::Gpu;
use crate::mappo::ActionMode;
use crate::market::{Candles, MarketData};
use crate::{Error, Result};

impl Policy {
    /// What the policy observes on `bars` of `candles` while it trades them with its own greedy decisions, `[bar][agent][feature]`, with
    /// features as `data` has scaled them: the calibration of [`super::ExportWeights::Int8`]. After a bankruptcy a new account goes on.
    ///
    /// # Errors
    /// [`Error::Data`] if the policy is not of a market, if `data` are of other candles or scaled otherwise, or if there are fewer than two
    /// bars; errors of the device.
    pub fn market_observations(
        &self,
        gpu: &Gpu,
        candles: &Candles,
        data: &MarketData,
        bars: Range<usize>,
    ) -> Result<Vec<f32>> {
        let market = self.market()?;
        if data.scaling() != &market.scaling
            || (data.bars(), data.instruments()) != (candles.bars(), candles.instruments())
        {
            return Err(Error::Data(
                "the market's features are those of other candles, or were scaled with other statistics than the model's".into(),
            ));
        }
        if bars.start < data.first_bar() || bars.end > data.bars() || bars.len() < 2 {
            return Err(Error::Data(format!(
                "bars {} to {} cannot be traded: features start at bar {}, the data has {} bars, and a range needs at least two",
                bars.start,
                bars.end,
                data.first_bar(),
                data.bars()
            )));
        }
        let (agents, features) = (data.instruments(), data.features());
        let scaled: Vec<f32> = gpu.read(data.buffer())?;
        let account = || {
            let costs = market.settings.costs(&candles.symbols)?;
            let settings = &market.settings;
            Ledger::new(agents, settings.starting_equity, settings.bankruptcy_level, costs)?
                .with_max_leverage(settings.max_leverage)
        };
        let mut ledger = account()?;
        let mut state = self.state(1)?;
        let masks = vec![market.settings.mask(); agents];
        let mut observed = Vec::with_capacity(bars.len() * agents * (features + 2));
        for bar in bars.start..bars.end - 1 {
            let first = observed.len();
            let close = candles.close.column(bar).to_vec();
            for agent in 0..agents {
                observed.extend_from_slice(&scaled[(bar * agents + agent) * features..][..features]);
                let value = ledger.quantity()[agent] * close[agent] * agents as f64;
                observed.push(ledger.level()[agent] as f32);
                observed.push((value / ledger.equity()).clamp(-5.0, 5.0) as f32);
            }
            let actions = self.act(&mut state, &observed[first..], &masks, ActionMode::Greedy)?;
            let level = |action: &u32| market.settings.level(*action).unwrap_or(0.0);
            let targets: Vec<f64> = actions.raw().iter().map(level).collect();
            let (open, next) =
                (candles.open.column(bar + 1).to_vec(), candles.close.column(bar + 1).to_vec());
            let filled = candles.filled.as_ref().map(|filled| filled.column(bar + 1).to_vec());
            let funding = candles.funding.as_ref().map(|funding| funding.column(bar + 1).to_vec());
            let mut prices = NextBar::new(&close, &open, &next).years(candles.years_before(bar + 1));
            if let Some(filled) = &filled {
                prices = prices.filled(filled);
            }
            if let Some(funding) = &funding {
                prices = prices.funding(funding);
            }
            if ledger.step(&targets, &prices)?.bankrupt {
                ledger = account()?;
                state.reset(0);
            }
        }
        Ok(observed)
    }
}
