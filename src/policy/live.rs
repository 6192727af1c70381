//! Decisions of a market policy on the last bar, bar by bar.

use jiff::civil::DateTime;

use super::account::Account;
use super::{ActionMode, Ensemble, EnsembleState, Policy};
use crate::env::ledger::Ledger;
use crate::gpu::Gpu;
use crate::market::{self, Candles, ExtraFeatures, LiveBar};
use crate::{Error, Result};

/// A market policy at work, or several that decide together: features, account and memory are kept bar by bar, and every bar gets a decision on its close.
///
/// Fed with the bars of a backtest it makes the decisions of [`Policy::targets`] and [`Ensemble::targets`]: the account is simulated with the rules of the
/// training, each decision filling at the next open. A caller who trades passes what it really holds ([`Holdings`]).
#[derive(Debug)]
pub struct Live {
    policies: Ensemble,
    features: market::Live,
    account: Account,
    state: EnsembleState,
    /// Whether an error left the account behind the features: nothing more is decided.
    broken: bool,
    observations: Vec<f32>,
    masks: Vec<u32>,
    decision: Decision,
}

/// The true holdings of the account after a bar, in place of the simulated account.
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
        Self::of_ensemble(gpu, &Ensemble::of(policy.clone()))
    }

    /// The same with several policies that decide together. The values are the mean of their critics' values.
    ///
    /// # Errors
    /// As [`Live::new`].
    pub fn of_ensemble(gpu: &Gpu, policies: &Ensemble) -> Result<Self> {
        let market = policies.market()?;
        let count = market.scaling.symbols.len();
        let wide = market.features().len();
        let outputs = policies.members()[0].metadata().actions.outputs() as usize;
        Ok(Self {
            features: market::Live::new(gpu, &market.scaling)?,
            account: Account::new(market)?,
            state: policies.state(1)?,
            broken: false,
            observations: vec![0.0; count * wide],
            masks: vec![market.settings.mask(); count],
            decision: Decision {
                targets: vec![0.0; count],
                probabilities: vec![0.0; count * outputs],
                values: vec![0.0; count],
                equity: market.settings.starting_equity,
                units: vec![0.0; count],
                bankrupt: false,
            },
            policies: policies.clone(),
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
        self.account.ledger()
    }

    /// Adds past bars, at which nothing is decided.
    ///
    /// # Errors
    /// As [`market::Live::warm_up`]; [`Error::Data`] after a decision.
    pub fn warm_up(&mut self, candles: &Candles, extra: &ExtraFeatures) -> Result<()> {
        if self.account.has_decided() {
            return Err(Error::Data("history comes before the first decision".into()));
        }
        self.features.warm_up(candles, extra)?;
        self.account.start_at(self.features.closes());
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
        holdings.map_or(Ok(()), |holdings| self.account.check(holdings))?;
        let before = self.features.last();
        self.features.push(timestamp, bars, extra)?;
        self.broken = true;
        self.account.settle(before.map_or(0.0, |before| market::years_between(before, timestamp)), bars)?;
        if let Some(holdings) = holdings {
            self.account.report(&self.policies.market()?.settings, holdings)?;
        }
        let ready = self.features.missing_bars() == 0;
        if ready {
            self.observe_and_act()?;
        }
        self.broken = false;
        Ok(ready.then_some(&self.decision))
    }

    fn observe_and_act(&mut self) -> Result<()> {
        let Self { policies, features, account, state, observations, masks, decision, .. } = self;
        account.observe(features.features(), observations);
        let settings = &policies.market()?.settings;
        let actions = policies.act(state, observations, masks, ActionMode::Greedy)?;
        let ledger = account.ledger();
        for (target, action) in decision.targets.iter_mut().zip(actions.raw()) {
            // Outputs that are not finite were refused.
            *target = settings.level(*action).filter(|_| !ledger.bankrupt()).unwrap_or(0.0);
        }
        decision.probabilities.copy_from_slice(policies.probabilities(state));
        decision.values.copy_from_slice(policies.values(state, observations)?);
        decision.equity = ledger.equity();
        decision.units.copy_from_slice(ledger.quantity());
        decision.bankrupt = ledger.bankrupt();
        account.order(&decision.targets);
        Ok(())
    }
}
