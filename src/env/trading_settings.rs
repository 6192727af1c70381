//! Settings of the market environment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::Costs;
use crate::ranges::check as range;
use crate::{Error, Result};

/// Meaning of an agent's action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionSpace {
    /// One of [`TradingSettings::positions`].
    #[default]
    Positions,
    /// A continuous target between the lowest and the highest allowed value of [`TradingSettings::positions`]: the action is a number
    /// in (-1, 1), which is mapped to that range. Best with the trainer's setting `squash`; without it, actions are clamped.
    Weights,
}

/// Settings of the market environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TradingSettings {
    /// Commission in basis points of the value at the fill price.
    pub commission_bps: f64,
    /// Slippage in basis points: distance between the fill price and the open, always against the trader.
    pub slippage_bps: f64,
    /// Commission per unit traded, in account currency, in addition to `commission_bps`.
    pub commission_per_unit: f64,
    /// Least commission of an order, in account currency.
    pub min_commission: f64,
    /// Spread between bid and ask in basis points; a fill is half of it away from the open, in addition to the slippage.
    pub spread_bps: f64,
    /// Spreads of single instruments, by symbol, which replace `spread_bps`.
    pub spreads_bps: BTreeMap<String, f64>,
    /// Rate a year paid on the value of short positions; 0.03 is 3 %.
    pub borrow_rate: f64,
    /// Rate a year earned on cash: the equity less the long positions.
    pub cash_rate: f64,
    /// Rate a year paid on borrowed cash: long positions beyond the equity.
    pub margin_rate: f64,
    /// Largest gross exposure that orders may lead to, as a multiple of the equity; larger orders are cut. Positions beyond -1 and 1
    /// need it. No limit by default.
    pub max_leverage: Option<f64>,
    /// Account value at the start, in account currency.
    pub starting_equity: f64,
    /// Meaning of an action: one of `positions`, or a weight between the lowest and the highest of them.
    pub actions: ActionSpace,
    /// Target positions that an agent chooses from: 1 is long with its share (an N-th) of the equity, -1 short, 0 flat.
    pub positions: Vec<f64>,
    /// Whether negative positions are allowed.
    pub shorting: bool,
    /// Steps per training episode.
    pub episode_length: u32,
    /// Fraction of the starting equity at which an account is closed.
    pub bankruptcy_level: f64,
    /// Weight of the agent's own log return in its reward; the portfolio's log return has the remaining weight.
    pub own_reward_weight: f64,
    /// Multiplier of the reward.
    pub reward_scale: f64,
    /// Penalty on increases of the portfolio's drawdown, in units of log return.
    pub drawdown_penalty: f64,
}

/// The settings of the first version, in the order in which it stored them.
const FIRST: [&str; 9] = [
    "commission_bps",
    "slippage_bps",
    "positions",
    "shorting",
    "episode_length",
    "bankruptcy_level",
    "own_reward_weight",
    "reward_scale",
    "drawdown_penalty",
];

impl Default for TradingSettings {
    fn default() -> Self {
        Self {
            commission_bps: 5.0,
            slippage_bps: 2.0,
            commission_per_unit: 0.0,
            min_commission: 0.0,
            spread_bps: 0.0,
            spreads_bps: BTreeMap::new(),
            borrow_rate: 0.0,
            cash_rate: 0.0,
            margin_rate: 0.0,
            max_leverage: None,
            starting_equity: 100_000.0,
            actions: ActionSpace::Positions,
            positions: vec![-1.0, 0.0, 1.0],
            shorting: true,
            episode_length: 128,
            bankruptcy_level: 0.1,
            own_reward_weight: 0.5,
            reward_scale: 100.0,
            drawdown_penalty: 0.0,
        }
    }
}

impl TradingSettings {
    /// The costs of an account that trades these instruments.
    ///
    /// # Errors
    /// [`Error::Config`] if `spreads_bps` names another instrument, or a fill would be worth nothing after slippage and spread.
    pub fn costs(&self, symbols: &[String]) -> Result<Costs> {
        if let Some(other) = self.spreads_bps.keys().find(|symbol| !symbols.contains(symbol)) {
            let reason =
                format!("`{other}` is not an instrument of the candles, which are {}", symbols.join(", "));
            return Err(Error::config("spreads_bps", reason));
        }
        let spread = |symbol: &String| self.spreads_bps.get(symbol).copied().unwrap_or(self.spread_bps);
        let spreads: Vec<f64> = symbols.iter().map(spread).collect();
        let spread_bps = if spreads.iter().any(|spread| *spread != 0.0) { spreads } else { Vec::new() };
        let costs = Costs { spread_bps, ..self.costs_without_spreads() };
        costs.validate()?;
        Ok(costs)
    }

    fn costs_without_spreads(&self) -> Costs {
        Costs {
            commission_bps: self.commission_bps,
            slippage_bps: self.slippage_bps,
            commission_per_unit: self.commission_per_unit,
            min_commission: self.min_commission,
            spread_bps: Vec::new(),
            borrow_rate: self.borrow_rate,
            cash_rate: self.cash_rate,
            margin_rate: self.margin_rate,
        }
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting and its range.
    pub fn validate(&self) -> Result<()> {
        self.costs_without_spreads().validate()?;
        let spread = |key: &str, spread: f64| range(key, spread, 0.0, 9_999.0);
        spread("spread_bps", self.spread_bps)?;
        self.spreads_bps
            .iter()
            .try_for_each(|(symbol, bps)| spread(&format!("spreads_bps.{symbol}"), *bps))?;
        self.max_leverage.map_or(Ok(()), |limit| range("max_leverage", limit, 0.01, 100.0))?;
        range("starting_equity", self.starting_equity, 1e-6, 1e15)?;
        range("positions", self.positions.len() as f64, 2.0, 32.0)?;
        self.positions.iter().try_for_each(|level| range("positions", *level, -10.0, 10.0))?;
        if let (None, Some(level)) = (self.max_leverage, self.allowed().find(|level| level.abs() > 1.0)) {
            let reason = format!(
                "{level} is beyond an instrument's share of the equity: set `max_leverage`, for instance to 1"
            );
            return Err(Error::config("positions", reason));
        }
        if self.allowed().next().is_none() {
            return Err(Error::config("shorting", "off, but every value of `positions` is negative"));
        }
        let [lowest, highest] = self.range();
        if self.continuous() && lowest >= highest {
            return Err(Error::config(
                "positions",
                "weights need two different allowed values, the lowest and the highest",
            ));
        }
        range("episode_length", f64::from(self.episode_length), 1.0, 1e6)?;
        range("bankruptcy_level", self.bankruptcy_level, 0.0, 0.999)?;
        range("own_reward_weight", self.own_reward_weight, 0.0, 1.0)?;
        range("reward_scale", self.reward_scale, 1e-6, 1e6)?;
        range("drawdown_penalty", self.drawdown_penalty, 0.0, 1e3)
    }

    /// Action mask, one bit per allowed action; bit 0 for continuous actions.
    #[must_use]
    pub fn mask(&self) -> u32 {
        if self.continuous() {
            return 1;
        }
        let allowed = self.positions.iter().take(32).map(|level| u32::from(self.shorting || *level >= 0.0));
        allowed.enumerate().fold(0, |mask, (action, bit)| mask | bit << action)
    }

    /// Whether actions are continuous: one real number per agent in (-1, 1).
    #[must_use]
    pub fn continuous(&self) -> bool {
        self.actions == ActionSpace::Weights
    }

    /// Number of discrete actions, or of real numbers of an action.
    #[must_use]
    pub fn actions(&self) -> u32 {
        if self.continuous() { 1 } else { self.positions.len() as u32 }
    }

    /// The settings as text, for the identity of a market: those of the first version, then later ones that differ from their defaults.
    /// So snapshots from before a setting was added can be resumed.
    pub(super) fn identity(&self) -> String {
        let [own, defaults] =
            [self, &Self::default()].map(|settings| serde_json::to_value(settings).unwrap_or_default());
        let first = FIRST.map(|key| format!("\"{key}\":{}", own[key])).join(",");
        let keys = own.as_object().into_iter().flatten();
        let later =
            keys.filter(|(key, value)| !FIRST.contains(&key.as_str()) && defaults[key.as_str()] != **value);
        let later = later.map(|(key, value)| format!(",\"{key}\":{value}")).collect::<String>();
        format!("{{{first}{later}}}")
    }

    /// Positions that `shorting` allows.
    fn allowed(&self) -> impl Iterator<Item = f64> {
        self.positions.iter().copied().filter(|level| self.shorting || *level >= 0.0)
    }

    /// Lowest and highest target of a continuous action: those of the allowed positions.
    pub(crate) fn range(&self) -> [f32; 2] {
        let ends = self
            .allowed()
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], level| [low.min(level), high.max(level)]);
        ends.map(|level| level as f32)
    }

    /// Target level of an action as the device computes it; `None` for an action that does not exist.
    pub(crate) fn level(&self, action: u32) -> Option<f64> {
        if !self.continuous() {
            return self.positions.get(action as usize).copied();
        }
        let (number, [lowest, highest]) = (f32::from_bits(action), self.range());
        let share = 0.5 * number.clamp(-1.0, 1.0) + 0.5;
        number.is_finite().then(|| f64::from((lowest + share * (highest - lowest)).clamp(lowest, highest)))
    }
}

/// Observation size of an agent: the features of its instrument, its target level, and the weight of its position.
#[must_use]
pub fn observation_size(features: usize) -> u32 {
    features as u32 + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> TradingSettings {
        TradingSettings::default()
    }

    #[test]
    fn errors_name_the_key() {
        let spreads = |bps| BTreeMap::from([("AAA".to_string(), bps)]);
        for (settings, wanted) in [
            (TradingSettings { min_commission: -1.0, ..defaults() }, "setting `min_commission`: -1 "),
            (
                TradingSettings { commission_per_unit: f64::NAN, ..defaults() },
                "setting `commission_per_unit`: NaN ",
            ),
            (TradingSettings { spread_bps: 1e4, ..defaults() }, "setting `spread_bps`: 10000 "),
            (TradingSettings { spreads_bps: spreads(-2.0), ..defaults() }, "setting `spreads_bps.AAA`: -2 "),
            (TradingSettings { borrow_rate: 11.0, ..defaults() }, "setting `borrow_rate`: 11 "),
            (TradingSettings { cash_rate: -2.0, ..defaults() }, "setting `cash_rate`: -2 "),
            (TradingSettings { margin_rate: -0.1, ..defaults() }, "setting `margin_rate`: -0.1 "),
            (TradingSettings { max_leverage: Some(0.0), ..defaults() }, "setting `max_leverage`: 0 "),
            (TradingSettings { starting_equity: 0.0, ..defaults() }, "setting `starting_equity`: 0 "),
            (TradingSettings { positions: vec![0.0, 2.0], ..defaults() }, "set `max_leverage`"),
            (
                TradingSettings {
                    actions: ActionSpace::Weights,
                    positions: vec![-1.0, 0.5],
                    shorting: false,
                    ..defaults()
                },
                "weights need two different allowed values",
            ),
        ] {
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        TradingSettings { positions: vec![0.0, 2.0], max_leverage: Some(1.5), ..defaults() }
            .validate()
            .unwrap();
    }

    #[test]
    fn later_settings_are_part_of_the_identity_only_where_they_differ() {
        let first = r#"{"commission_bps":5.0,"slippage_bps":2.0,"positions":[-1.0,0.0,1.0],"shorting":true,"episode_length":128,"bankruptcy_level":0.1,"own_reward_weight":0.5,"reward_scale":100.0,"drawdown_penalty":0.0}"#;
        assert_eq!(defaults().identity(), first, "as the first version stored it");
        let other = TradingSettings { borrow_rate: 0.1, ..defaults() }.identity();
        assert_eq!(other, first.replace("}", ",\"borrow_rate\":0.1}"));
    }

    #[test]
    fn a_fill_is_worth_something_after_slippage_and_spread() {
        let settings = TradingSettings { slippage_bps: 6000.0, spread_bps: 9000.0, ..defaults() };
        settings.costs(&["AAA".into()]).unwrap_err();
    }

    #[test]
    fn a_level_that_is_never_taken_needs_no_leverage() {
        let settings = TradingSettings { positions: vec![-2.0, 0.0, 1.0], shorting: false, ..defaults() };
        settings.validate().unwrap();
        TradingSettings { shorting: true, ..settings }.validate().unwrap_err();
    }

    #[test]
    fn spreads_are_those_of_the_symbols() {
        let symbols = ["AAA", "BBB"].map(String::from);
        assert_eq!(defaults().costs(&symbols).unwrap(), Costs::default());
        let settings = TradingSettings {
            spread_bps: 3.0,
            spreads_bps: BTreeMap::from([("BBB".into(), 8.0)]),
            ..defaults()
        };
        let costs = settings.costs(&symbols).unwrap();
        assert_eq!(costs.spread_bps, [3.0, 8.0]);
        assert!((costs.slippage_rate(1) - 6e-4).abs() < 1e-18);
        let error = settings.costs(&symbols[..1]).unwrap_err().to_string();
        assert!(
            error.contains("`spreads_bps`") && error.contains("`BBB`") && error.contains("AAA"),
            "{error}"
        );
    }

    #[test]
    fn actions_are_positions_or_weights() {
        assert_eq!((defaults().actions(), defaults().mask(), defaults().level(2)), (3, 0b111, Some(1.0)));
        assert_eq!(defaults().level(3), None);
        let weights =
            TradingSettings { actions: ActionSpace::Weights, positions: vec![-1.0, 3.0], ..defaults() };
        let level = |number: f32| weights.level(number.to_bits());
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 7.0].map(level), [-1.0, 1.0, 2.0, 3.0, 3.0].map(Some));
        assert_eq!((level(f32::NAN), weights.actions(), weights.mask()), (None, 1, 1));
        let long = TradingSettings { shorting: false, positions: vec![-1.0, 0.0, 1.0], ..weights };
        assert_eq!(long.range(), [0.0, 1.0]);
    }
}
