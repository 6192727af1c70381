//! The market environment: N instruments are N agents that trade one portfolio, in E parallel environments.

use std::ops::Range;

use super::device_env::DeviceEnv;
use super::ledger::Costs;
use super::market::{self, Parameters};
use super::starts::Starts;
use super::trading_settings::{TradingSettings, observation_size};
use super::{EnvRecording, Environment, RolloutBuffers, Spec};
use crate::Result;
use crate::gpu::{Gpu, Plan};
use crate::market::{MarketData, ScalingStatistics};

/// Start and length of episodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Episodes {
    /// Episodes of [`TradingSettings::episode_length`] steps that start at random bars and stay within this range.
    Random(Range<usize>),
    /// The same within one of several ranges, which are ascending and do not overlap. Every start is equally likely; a range that is too
    /// short for an episode has none.
    Within(Vec<Range<usize>>),
    /// One episode over the whole range: the first decision follows the first bar, the last order fills at the last bar.
    Whole(Range<usize>),
}

/// The market environment.
#[derive(Clone, Debug)]
pub struct Trading {
    data: MarketData,
    settings: TradingSettings,
    costs: Costs,
    pub(super) starts: Starts,
}

impl Trading {
    /// Creates a market environment over `data` with `settings`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for settings out of range or of an unknown instrument, or episodes longer than every range of bars;
    /// [`Error::Data`](crate::Error::Data) if a range lies outside the data, starts before every feature has a value, has fewer than two bars, or does not
    /// come after the one before.
    pub fn new(data: &MarketData, settings: &TradingSettings, episodes: &Episodes) -> Result<Self> {
        settings.validate()?;
        let costs = settings.costs(&data.scaling().symbols)?;
        let starts = Starts::new(data, episodes, settings.episode_length)?;
        Ok(Self { data: data.clone(), settings: settings.clone(), costs, starts })
    }

    /// The buffers of a market of `instruments` instruments with one range of bars, for estimates without data.
    #[must_use]
    pub fn plan_of(instruments: u32, envs: u32, steps: u32) -> Plan {
        market::plan(instruments, envs, steps, 1)
    }

    /// The end of the bars that episodes can reach. Candles from there on may differ in a resumed run.
    fn end(&self) -> usize {
        self.starts.last_bar() as usize + 1
    }

    fn parameters(&self) -> Parameters {
        let Self { settings, costs, data, starts } = self;
        let [lowest, highest] = settings.range();
        let mut levels = [0f32; 32];
        levels.iter_mut().zip(&settings.positions).for_each(|(slot, level)| *slot = *level as f32);
        Parameters {
            features: data.features() as u32,
            first: starts.first(),
            last: starts.last_bar() - 1,
            prices: data.prices_at(),
            commission: costs.commission_rate() as f32,
            commission_per_unit: costs.commission_per_unit as f32,
            min_commission: (costs.min_commission / settings.starting_equity) as f32,
            max_leverage: settings.max_leverage.unwrap_or(0.0) as f32,
            borrow_rate: costs.borrow_rate as f32,
            cash_rate: costs.cash_rate as f32,
            margin_rate: costs.margin_rate as f32,
            accrues: u32::from(costs.accrues() || data.funding_at().is_some()),
            years: data.years_at(),
            funding: data.funding_at().unwrap_or(0),
            bankruptcy: settings.bankruptcy_level as f32,
            own_weight: settings.own_reward_weight as f32,
            reward_scale: settings.reward_scale as f32,
            drawdown_penalty: settings.drawdown_penalty as f32,
            mask: settings.mask(),
            zero: 0,
            lowest,
            highest,
            pad: [0; 2],
            levels,
        }
    }

    /// The environment as WGSL functions. It binds the candles' own buffer.
    ///
    /// # Errors
    /// None but for a mistake in this crate: the functions are those of `shaders/env/market.wgsl`.
    pub(super) fn functions(&self) -> Result<DeviceEnv> {
        let (spec, continuous, parameters) = (self.spec(), self.continuous(), self.parameters());
        let slippage = (0..self.data.instruments()).map(|i| self.costs.slippage_rate(i) as f32);
        let mut table: Vec<u32> = slippage.map(f32::to_bits).collect();
        table.extend(self.starts.table());
        let rules = market::Rules { spec, continuous, parameters, starts: self.starts.clone() };
        market::builder(spec, continuous, &parameters)?
            .identity(self.identity())
            .buffer_f32("candles", self.data.buffer())
            .data_u32("table", table)
            .time_limit(self.starts.length)
            .validate(move |fields| rules.validate(fields))
            .build()
    }
}

impl Environment for Trading {
    fn spec(&self) -> Spec {
        Spec {
            agents: self.data.instruments() as u32,
            obs_dim: observation_size(self.data.features()),
            actions: self.settings.actions(),
        }
    }

    fn continuous(&self) -> bool {
        self.settings.continuous()
    }

    fn identity(&self) -> String {
        let Self { data, settings, starts, .. } = self;
        let end = self.end();
        let traded = data.checksum(end);
        let scaling = serde_json::to_string(data.scaling()).unwrap_or_default();
        let rules = settings.identity();
        let mut crc = crc32fast::Hasher::new();
        crc.update(format!("[{scaling},{rules},{},{traded}]", starts.identity()).as_bytes());
        if self.costs.accrues() {
            crc.update(&data.time_checksum(end).to_le_bytes());
        }
        format!("market of {} instruments, {:08x}", data.instruments(), crc.finalize())
    }

    fn candles(&self) -> Option<String> {
        Some(self.data.candles_before(self.end()))
    }

    fn scaling(&self) -> Option<&ScalingStatistics> {
        Some(self.data.scaling())
    }

    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(self.starts.length)
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        market::plan(self.spec().agents, envs, steps, self.starts.ranges())
    }

    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        self.functions().map(Some)
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        self.functions()?.record(gpu, rollout)
    }
}
