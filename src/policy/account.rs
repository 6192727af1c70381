//! The account that a market policy observes, bar by bar.

use super::live::Holdings;
use super::market::MarketMetadata;
use crate::env::TradingSettings;
use crate::env::ledger::{Ledger, NextBar};
use crate::market::LiveBar;
use crate::{Error, Result};

/// Largest weight of a position in an observation, in shares of the account.
const MOST_WEIGHT: f32 = 5.0;

/// Positions, closes and the decision that waits for the next bar, with the rules of the training.
#[derive(Debug)]
pub(super) struct Account {
    ledger: Ledger,
    /// Equity of the account when it was opened, or first reported.
    start: f64,
    /// Whether the caller has reported an account.
    reported: bool,
    /// The decision that fills at the next bar; `None` before the first.
    targets: Option<Vec<f64>>,
    /// The last close of every instrument; NaN before its first bar.
    closes: Vec<f64>,
}

impl Account {
    pub(super) fn new(market: &MarketMetadata) -> Result<Self> {
        let MarketMetadata { settings, scaling, .. } = market;
        let count = scaling.symbols.len();
        let costs = settings.costs(&scaling.symbols)?;
        let ledger = Ledger::new(count, settings.starting_equity, settings.bankruptcy_level, costs)?;
        Ok(Self {
            ledger: ledger.with_max_leverage(settings.max_leverage)?,
            start: settings.starting_equity,
            reported: false,
            targets: None,
            closes: vec![f64::NAN; count],
        })
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether something was decided.
    pub(super) fn has_decided(&self) -> bool {
        self.targets.is_some()
    }

    /// Fills the last decision at the open of a bar, `years` after the one before, and marks the account to its close.
    pub(super) fn settle(&mut self, years: f64, bars: &[Option<LiveBar>]) -> Result<()> {
        let price = |value: fn(&LiveBar) -> f64| -> Vec<f64> {
            let pairs = bars.iter().zip(&self.closes);
            pairs.map(|(bar, last)| bar.as_ref().map_or(*last, value)).collect()
        };
        let (open, close) = (price(|bar| bar.open), price(|bar| bar.close));
        if let Some(targets) = &self.targets {
            let filled: Vec<bool> = bars.iter().map(Option::is_none).collect();
            let funding: Vec<f64> = bars.iter().map(|bar| bar.map_or(0.0, |bar| bar.funding)).collect();
            let next =
                NextBar::new(&self.closes, &open, &close).filled(&filled).funding(&funding).years(years);
            self.ledger.step(targets, &next)?;
        }
        self.closes = close;
        Ok(())
    }

    /// Sets the last closes, before the first decision.
    pub(super) fn start_at(&mut self, closes: impl Iterator<Item = f64>) {
        self.closes.iter_mut().zip(closes).for_each(|(to, close)| *to = close);
    }

    /// Checks what the caller says the account holds.
    pub(super) fn check(&self, Holdings { equity, units }: Holdings<'_>) -> Result<()> {
        self.ledger.check_holdings(equity, units)?;
        if !self.reported && equity <= 0.0 {
            return Err(Error::Data(format!(
                "the first equity of the account is {equity}, expected more than 0"
            )));
        }
        Ok(())
    }

    /// Takes over what the account holds at the last closes.
    pub(super) fn report(&mut self, settings: &TradingSettings, holdings: Holdings<'_>) -> Result<()> {
        self.check(holdings)?;
        let Holdings { equity, units } = holdings;
        if !std::mem::replace(&mut self.reported, true) {
            self.ledger.rebase(self.start, equity);
            self.start = equity;
        }
        let held = self.levels(settings, holdings);
        self.ledger.reconcile(equity, units, &held)
    }

    /// The allowed levels nearest to what is held, as shares of the equity; a continuous policy's are those shares.
    fn levels(&self, settings: &TradingSettings, Holdings { equity, units }: Holdings<'_>) -> Vec<f64> {
        let nearest = |share: f64| {
            let levels = settings.positions.iter().copied();
            let near = levels.min_by(|a, b| (a - share).abs().total_cmp(&(b - share).abs()));
            if settings.continuous() { share } else { near.unwrap_or(0.0) }
        };
        let share = |units: f64, close: f64| units * close * self.closes.len() as f64 / equity;
        let held = units.iter().zip(&self.closes).map(|(units, close)| match share(*units, *close) {
            share if *units != 0.0 && share.is_finite() => nearest(share),
            _ => 0.0,
        });
        held.collect()
    }

    /// Writes the observations as the environment writes them, `[instrument][feature]`: `features`, target level, weight of the position.
    pub(super) fn observe(&self, features: &[f32], observations: &mut [f32]) {
        let count = self.closes.len();
        let wide = features.len() / count;
        let equity = (self.ledger.equity() / self.start).max(1e-6);
        let rows = observations.chunks_exact_mut(wide + 2).zip(features.chunks_exact(wide));
        for (i, (row, features)) in rows.enumerate() {
            let (own, position) = row.split_at_mut(wide);
            own.copy_from_slice(features);
            let held = self.ledger.quantity()[i] * self.closes[i] / self.start;
            let weight = (held * count as f64 / equity) as f32;
            position
                .copy_from_slice(&[self.ledger.level()[i] as f32, weight.clamp(-MOST_WEIGHT, MOST_WEIGHT)]);
        }
    }

    /// Decides: `targets` fill at the next bar.
    pub(super) fn order(&mut self, targets: &[f64]) {
        let own = self.targets.get_or_insert_default();
        own.clear();
        own.extend_from_slice(targets);
    }
}
