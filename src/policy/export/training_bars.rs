//! Observations of a market policy on candles, for the calibration of an export.

use std::ops::Range;

use super::Policy;
use crate::gpu::Gpu;
use crate::mappo::ActionMode;
use crate::market::{Candles, MarketData};
use crate::policy::account::Account;
use crate::{Error, Result};

impl Policy {
    /// Observations of the policy on `bars` of `candles` while it trades them with its own greedy decisions, `[bar][agent][feature]`, with
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
        market.check_scaling(data)?;
        if (data.bars(), data.instruments()) != (candles.bars(), candles.instruments()) {
            return Err(Error::Data("the market's features are those of other candles".into()));
        }
        data.check_tradable(&bars)?;
        let (agents, features) = (data.instruments(), data.features());
        let scaled: Vec<f32> = gpu.read(data.buffer())?;
        // The closes before the first bar, which may be filled.
        let closes = |bar: usize| (0..agents).map(move |agent| candles.close[[agent, bar]]);
        let mut account = Account::new(market)?;
        account.start_at(closes(bars.start));
        let mut state = self.state(1)?;
        let masks = vec![market.settings.mask(); agents];
        let wide = agents * (features + 2);
        let mut observed = vec![0.0; (bars.len() - 1) * wide];
        for (bar, observations) in bars.zip(observed.chunks_exact_mut(wide)) {
            account.settle(candles.years_before(bar), &candles.live_bars(bar))?;
            if account.ledger().bankrupt() {
                account = Account::new(market)?;
                account.start_at(closes(bar));
                state.reset(0);
            }
            account.observe(&scaled[bar * agents * features..][..agents * features], observations);
            let actions = self.act(&mut state, observations, &masks, ActionMode::Greedy)?;
            let level = |action: &u32| market.settings.level(*action).unwrap_or(0.0);
            account.order(&actions.raw().iter().map(level).collect::<Vec<_>>());
        }
        Ok(observed)
    }
}
