//! The market environment: N instruments are N agents that trade one portfolio, in E parallel environments.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ledger::Costs;
use super::market::{self, Parameters};
use super::{DeviceState, EnvRecording, Environment, RolloutBuffers, Spec};
use crate::gpu::{Gpu, Plan};
use crate::market::MarketData;
use crate::{Error, Result};

/// Settings of the market environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TradingSettings {
    /// Commission in basis points of the value at the fill price.
    pub commission_bps: f64,
    /// Slippage in basis points: distance between the fill price and the open, always against the trader.
    pub slippage_bps: f64,
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

impl Default for TradingSettings {
    fn default() -> Self {
        Self {
            commission_bps: 5.0,
            slippage_bps: 2.0,
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
    /// Commission and slippage.
    #[must_use]
    pub fn costs(&self) -> Costs {
        Costs { commission_bps: self.commission_bps, slippage_bps: self.slippage_bps }
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting and its range.
    pub fn validate(&self) -> Result<()> {
        self.costs().validate()?;
        let range = |key: &str, value: f64, low: f64, high: f64| {
            if value.is_finite() && (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::config(key, format!("{value} is out of range: from {low} to {high}")))
        };
        range("positions", self.positions.len() as f64, 2.0, 32.0)?;
        self.positions.iter().try_for_each(|level| range("positions", *level, -10.0, 10.0))?;
        if self.mask().count_ones() < 1 {
            return Err(Error::config("shorting", "off, but every value of `positions` is negative"));
        }
        range("episode_length", f64::from(self.episode_length), 1.0, 1e6)?;
        range("bankruptcy_level", self.bankruptcy_level, 0.0, 0.999)?;
        range("own_reward_weight", self.own_reward_weight, 0.0, 1.0)?;
        range("reward_scale", self.reward_scale, 1e-6, 1e6)?;
        range("drawdown_penalty", self.drawdown_penalty, 0.0, 1e3)
    }

    /// Action mask, one bit per allowed action.
    #[must_use]
    pub fn mask(&self) -> u32 {
        let allowed = self.positions.iter().take(32).map(|level| u32::from(self.shorting || *level >= 0.0));
        allowed.enumerate().fold(0, |mask, (action, bit)| mask | bit << action)
    }
}

/// Observation size of an agent: the features of its instrument, its target level, and the weight of its position.
#[must_use]
pub fn observation_size(features: usize) -> u32 {
    features as u32 + 2
}

/// Start and length of episodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Episodes {
    /// Episodes of [`TradingSettings::episode_length`] steps that start at random bars and stay within this range.
    Random(Range<usize>),
    /// One episode over the whole range: the first decision follows the first bar, the last order fills at the last bar.
    Whole(Range<usize>),
}

/// The market environment.
#[derive(Clone, Debug)]
pub struct Trading {
    data: MarketData,
    settings: TradingSettings,
    pub(super) first: u32,
    pub(super) starts: u32,
    pub(super) length: u32,
}

impl Trading {
    /// Creates a market environment over `data` with `settings`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, or episodes longer than the range of bars; [`Error::Data`] if the range lies
    /// outside the data, starts before every feature has a value, or has fewer than two bars.
    pub fn new(data: &MarketData, settings: &TradingSettings, episodes: &Episodes) -> Result<Self> {
        settings.validate()?;
        let (Episodes::Random(bars) | Episodes::Whole(bars)) = episodes;
        if bars.start < data.first_bar() || bars.end > data.bars() || bars.len() < 2 {
            return Err(Error::Data(format!(
                "bars {} to {} cannot be traded: features start at bar {}, the data has {} bars, and a range needs at least two",
                bars.start,
                bars.end,
                data.first_bar(),
                data.bars()
            )));
        }
        let length = match episodes {
            Episodes::Random(_) => settings.episode_length as usize,
            Episodes::Whole(bars) => bars.len() - 1,
        };
        let Some(starts) = bars.len().checked_sub(length).filter(|starts| *starts > 0) else {
            return Err(Error::config(
                "episode_length",
                format!("{length} steps do not fit in the {} bars of the training split", bars.len()),
            ));
        };
        Ok(Self {
            data: data.clone(),
            settings: settings.clone(),
            first: bars.start as u32,
            starts: starts as u32,
            length: length as u32,
        })
    }

    /// The buffers of a market of `instruments` instruments, for estimates without data: the plan of every such market.
    #[must_use]
    pub fn plan_of(instruments: u32, envs: u32, steps: u32) -> Plan {
        market::plan(instruments, envs, steps)
    }

    fn parameters(&self, rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Parameters {
        let settings = &self.settings;
        let mut levels = [0f32; 32];
        levels.iter_mut().zip(&settings.positions).for_each(|(slot, level)| *slot = *level as f32);
        Parameters {
            step,
            steps: rollout.steps,
            envs: rollout.envs,
            agents: self.data.instruments() as u32,
            features: self.data.features() as u32,
            actions: settings.positions.len() as u32,
            reset: u32::from(reset),
            first: self.first,
            starts: self.starts,
            length: self.length,
            prices: self.data.prices_at(),
            seed_low: rollout.seed as u32,
            // A separate random stream: initial weights use the plain seed.
            seed_high: (rollout.seed >> 32) as u32 ^ 0x5EED_0E17,
            commission: settings.costs().commission_rate() as f32,
            slippage: settings.costs().slippage_rate() as f32,
            bankruptcy: settings.bankruptcy_level as f32,
            own_weight: settings.own_reward_weight as f32,
            reward_scale: settings.reward_scale as f32,
            drawdown_penalty: settings.drawdown_penalty as f32,
            mask: settings.mask(),
            zero: 0,
            pad: [0; 3],
            levels,
        }
    }
}

impl Environment for Trading {
    fn spec(&self) -> Spec {
        Spec {
            agents: self.data.instruments() as u32,
            obs_dim: observation_size(self.data.features()),
            actions: self.settings.positions.len() as u32,
        }
    }

    fn identity(&self) -> String {
        let Self { data, settings, first, starts, length } = self;
        // Candles after the last tradable bar may differ.
        let traded = data.checksum((first + starts + length) as usize);
        let text = serde_json::to_string(&(data.scaling(), settings, first, starts, length, traded));
        let mut crc = crc32fast::Hasher::new();
        crc.update(text.unwrap_or_default().as_bytes());
        format!("market of {} instruments, {:08x}", data.instruments(), crc.finalize())
    }

    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(self.length)
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        Self::plan_of(self.spec().agents, envs, steps)
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        let kernel = market::kernel(gpu, rollout.storage)?;
        let words = market::state_words(self.spec().agents, rollout.envs);
        let buffer = gpu.buffer("market state", words * 4, crate::gpu::STATE)?;
        let rules = self.parameters(rollout, 0, false);
        let state = DeviceState::new(buffer, move |words| market::validate(&rules, words));
        let data = [self.data.buffer()];
        EnvRecording::of_kernel(gpu, rollout, &kernel, state, &data, |step, reset| {
            self.parameters(rollout, step, reset)
        })
    }
}
