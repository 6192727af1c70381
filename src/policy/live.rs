//! Decisions of a market policy on the last bar, bar by bar.

use jiff::civil::DateTime;

use super::{ActionMode, Policy, PolicyState};
use crate::env::ledger::{Ledger, NextBar, Step};
use crate::gpu::Gpu;
use crate::market::{self, Candles, ExtraFeatures, LiveBar};
use crate::{Error, Result};

/// Largest weight of a position in an observation, in shares of the account.
const MOST_WEIGHT: f32 = 5.0;

/// A market policy at work: features, account and memory are kept bar by bar, and every bar gets a decision on its close.
///
/// Fed with the bars of a backtest it makes the decisions of [`Policy::targets`]: the account is simulated with the rules of the
/// training, each decision filling at the next open. A caller who trades passes what it really holds ([`Holdings`]).
#[derive(Debug)]
pub struct Live {
    policy: Policy,
    features: market::Live,
    state: PolicyState,
    ledger: Ledger,
    /// Equity of the account when it was opened, or first reported.
    start: f64,
    /// Whether the caller has reported an account.
    reported: bool,
    /// Whether an error left the account behind the features: nothing more is decided.
    broken: bool,
    /// The decision that fills at the next bar; `None` before the first.
    targets: Option<Vec<f64>>,
    closes: Vec<f64>,
    observations: Vec<f32>,
    masks: Vec<u32>,
    decision: Decision,
}

/// What the account really holds after a bar, in place of the simulated account.
#[derive(Clone, Copy, Debug)]
pub struct Holdings<'a> {
    /// Account value at the close, in account currency.
    pub equity: f64,
    /// Signed units per instrument.
    pub units: &'a [f64],
}

/// A decision after the close of a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Target level per instrument: 1 is an N-th of the equity long, -1 short.
    pub targets: Vec<f64>,
    /// Probabilities of the actions, or means and standard deviations ([`Policy::probabilities`]), `[instrument][number]`.
    pub probabilities: Vec<f32>,
    /// The critic's value per instrument ([`Policy::values`]).
    pub values: Vec<f32>,
    /// Account value at the close, in account currency.
    pub equity: f64,
    /// Units held per instrument.
    pub units: Vec<f64>,
    /// Whether the account is closed: its equity fell to the bankruptcy level of the training. All targets are 0 then.
    pub bankrupt: bool,
}

impl Live {
    /// Starts without history and without positions.
    ///
    /// # Errors
    /// [`Error::Data`] if the policy is not of a market, or was trained on other features; errors of compilation and allocation.
    pub fn new(gpu: &Gpu, policy: &Policy) -> Result<Self> {
        let market = policy.market()?;
        let settings = &market.settings;
        let symbols = &market.scaling.symbols;
        let count = symbols.len();
        let costs = settings.costs(symbols)?;
        let ledger = Ledger::new(count, settings.starting_equity, settings.bankruptcy_level, costs)?;
        let wide = policy.metadata().network.obs_dim as usize;
        let outputs = policy.metadata().actions.outputs() as usize;
        Ok(Self {
            features: market::Live::new(gpu, &market.scaling)?,
            state: policy.state(1)?,
            ledger: ledger.with_max_leverage(settings.max_leverage)?,
            start: settings.starting_equity,
            reported: false,
            broken: false,
            targets: None,
            closes: vec![f64::NAN; count],
            observations: vec![0.0; count * wide],
            masks: vec![settings.mask(); count],
            decision: Decision {
                targets: vec![0.0; count],
                probabilities: vec![0.0; count * outputs],
                values: vec![0.0; count],
                equity: settings.starting_equity,
                units: vec![0.0; count],
                bankrupt: false,
            },
            policy: policy.clone(),
        })
    }

    /// The features and their history.
    #[must_use]
    pub fn features(&self) -> &market::Live {
        &self.features
    }

    /// Observations of the last decision, `[instrument][feature]`.
    #[must_use]
    pub fn observations(&self) -> &[f32] {
        &self.observations
    }

    /// The last decision.
    #[must_use]
    pub fn last(&self) -> &Decision {
        &self.decision
    }

    /// The account, simulated or as the caller said.
    #[must_use]
    pub fn account(&self) -> &Ledger {
        &self.ledger
    }

    /// Adds past bars, at which nothing is decided.
    ///
    /// # Errors
    /// As [`market::Live::warm_up`]; [`Error::Data`] after a decision.
    pub fn warm_up(&mut self, candles: &Candles, extra: &ExtraFeatures) -> Result<()> {
        if self.targets.is_some() {
            return Err(Error::Data("history comes before the first decision".into()));
        }
        self.features.warm_up(candles, extra)?;
        self.closes.iter_mut().zip(self.features.closes()).for_each(|(to, close)| *to = close);
        Ok(())
    }

    /// Adds a bar, which has closed, and decides. `bars` has an entry per instrument, `None` where it did not trade; an order waits for
    /// the next bar of its instrument. `extra` are the caller's features of the bar, `[instrument][feature]`. Returns `None` while the
    /// features still lack history ([`market::Live::missing_bars`]).
    ///
    /// With `holdings` the account is what the caller says it is, from now on. The first equity that is reported takes the place of the
    /// starting equity of the training: the account counts as bankrupt at the bankruptcy level's fraction of it.
    ///
    /// # Errors
    /// As [`market::Live::push`]; [`Error::Data`] for an account that is not finite or not above 0 at first. Then nothing has changed. After
    /// an error of the account or of the networks (outputs that are not finite) every later call fails: features and account belong to
    /// different bars.
    pub fn decide(
        &mut self,
        timestamp: DateTime,
        bars: &mut [Option<LiveBar>],
        extra: &[f64],
        holdings: Option<Holdings<'_>>,
    ) -> Result<Option<&Decision>> {
        if self.broken {
            return Err(Error::Data(
                "an earlier error left the account behind: start anew, with the bars so far".into(),
            ));
        }
        if let Some(Holdings { equity, units }) = holdings {
            self.ledger.check_holdings(equity, units)?;
            if !self.reported && equity <= 0.0 {
                return Err(Error::Data(format!(
                    "the first equity of the account is {equity}, expected more than 0"
                )));
            }
        }
        let before = self.features.last();
        self.features.push(timestamp, bars, extra)?;
        self.broken = true;
        let decided = self.decide_on(before, timestamp, bars, holdings)?;
        self.broken = false;
        Ok(decided.then_some(&self.decision))
    }

    /// Decides on the bar that the features were just computed of. Returns whether there is a decision.
    fn decide_on(
        &mut self,
        before: Option<DateTime>,
        timestamp: DateTime,
        bars: &[Option<LiveBar>],
        holdings: Option<Holdings<'_>>,
    ) -> Result<bool> {
        self.settle(before, timestamp, bars)?;
        self.closes.iter_mut().zip(self.features.closes()).for_each(|(to, close)| *to = close);
        if let Some(Holdings { equity, units }) = holdings {
            if !std::mem::replace(&mut self.reported, true) {
                self.ledger.rebase(self.start, equity);
                self.start = equity;
            }
            let held = self.levels_of(equity, units)?;
            self.ledger.reconcile(equity, units, &held)?;
        }
        if self.features.missing_bars() > 0 {
            return Ok(false);
        }
        self.observe();
        let Self { policy, state, observations, masks, decision, ledger, .. } = self;
        let market = policy.market()?;
        let actions = policy.act(state, observations, masks, ActionMode::Greedy)?;
        for (agent, target) in decision.targets.iter_mut().enumerate() {
            let action = actions.raw()[agent];
            // Outputs that are not finite were refused.
            *target = market.settings.level(action).filter(|_| !ledger.bankrupt()).unwrap_or(0.0);
        }
        decision.probabilities.copy_from_slice(policy.probabilities(state));
        decision.values.copy_from_slice(policy.values(state, observations, &[])?);
        decision.equity = ledger.equity();
        decision.units.copy_from_slice(ledger.quantity());
        decision.bankrupt = ledger.bankrupt();
        self.targets.get_or_insert_default().clone_from(&self.decision.targets);
        Ok(true)
    }

    /// The allowed levels nearest to what is held, as shares of the equity; a continuous policy's are those shares.
    fn levels_of(&self, equity: f64, units: &[f64]) -> Result<Vec<f64>> {
        let settings = &self.policy.market()?.settings;
        let count = units.len() as f64;
        let nearest = |share: f64| {
            let levels = settings.positions.iter().copied();
            let near = levels.min_by(|a, b| (a - share).abs().total_cmp(&(b - share).abs())).unwrap_or(0.0);
            if settings.continuous() { share } else { near }
        };
        let shares = units.iter().zip(&self.closes).map(|(units, close)| match *units {
            0.0 => 0.0,
            units => nearest(units * close * count / equity.max(f64::MIN_POSITIVE)),
        });
        Ok(shares.map(|level| if level.is_finite() { level } else { 0.0 }).collect())
    }

    /// Fills the last decision at the open of this bar and marks the account to its close.
    fn settle(
        &mut self,
        before: Option<DateTime>,
        now: DateTime,
        bars: &[Option<LiveBar>],
    ) -> Result<Option<Step>> {
        let (Some(targets), Some(before)) = (&self.targets, before) else { return Ok(None) };
        let price = |value: fn(&LiveBar) -> f64| -> Vec<f64> {
            let pairs = bars.iter().zip(&self.closes);
            pairs.map(|(bar, last)| bar.as_ref().map_or(*last, value)).collect()
        };
        let (open, close) = (price(|bar| bar.open), price(|bar| bar.close));
        let filled: Vec<bool> = bars.iter().map(Option::is_none).collect();
        let funding: Vec<f64> = bars.iter().map(|bar| bar.map_or(0.0, |bar| bar.funding)).collect();
        let next = NextBar::new(&self.closes, &open, &close)
            .filled(&filled)
            .funding(&funding)
            .years(market::years_between(before, now));
        self.ledger.step(targets, &next).map(Some)
    }

    /// Writes the observations as the environment writes them: features, target level, weight of the position.
    fn observe(&mut self) {
        let count = self.closes.len();
        let wide = self.observations.len() / count;
        let features = self.features.features();
        let start = self.start;
        let equity = (self.ledger.equity() / start).max(1e-6);
        for (i, row) in self.observations.chunks_exact_mut(wide).enumerate() {
            row[..wide - 2].copy_from_slice(&features[i * (wide - 2)..][..wide - 2]);
            row[wide - 2] = self.ledger.level()[i] as f32;
            let held = self.ledger.quantity()[i] * self.closes[i] / start;
            row[wide - 1] = ((held * count as f64 / equity) as f32).clamp(-MOST_WEIGHT, MOST_WEIGHT);
        }
    }
}
