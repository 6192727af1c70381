//! The rules of the market on the device: the device implementation of [`super::ledger`].
//!
//! A decision made after the close of bar t fills at the open of t+1 with commission and slippage and is marked to market at the
//! close of t+1. At a filled bar, whose open is given as 0, it waits. Amounts are in units of the starting equity. The reward of agent i is scale (w own_i + (1 - w) portfolio - penalty max(0, deeper)), where own_i = ln(1 + N
//! (pnl_i - cost_i + rate_i) / E), portfolio = ln(E' / E) and deeper is the increase in drawdown. An episode terminates when equity is at
//! or below the bankruptcy level, and is truncated at full length.
//!
//! Shapes: candles f32 `[bar][instrument][feature]`, then prices `[bar][instrument][gap, move, open or 0, close]`, years `[bar]` and
//! funding `[bar][instrument]`; table u32: the bits of the slippage of each instrument, then [`Starts::table`]; state
//! `[field][env]`; all other buffers as in [`super::RolloutBuffers`].

use super::device_env::{self, DeviceEnv, DeviceEnvBuilder, Rows};
use super::starts::Starts;
use super::trading_settings::observation_size;
use super::{Spec, StateFields};
use crate::Result;
use crate::gpu::{Plan, Shader, Variant, compose_all};

/// The environment's functions.
pub(super) const SHADER: Shader = crate::shaders::shader!("env/market");

/// Rows of the state, one word of each environment; the quantities of all instruments follow, then their levels.
const EQUITY: u32 = 0;
const EQUITY_REST: u32 = 1;
const PEAK: u32 = 2;
const RETURN: u32 = 3;
const BAR: u32 = 4;
const TAKEN: u32 = 5;
const EPISODE: u32 = 6;
const CUT: u32 = 7;
const QUANTITY: u32 = 8;

/// Mirrors `Parameters` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    /// Features per bar and instrument.
    pub(super) features: u32,
    /// First bar at which an episode can start.
    pub(super) first: u32,
    /// Last bar of an episode after which another one follows.
    pub(super) last: u32,
    /// Index of the first price in the candles.
    pub(super) prices: u32,
    /// Commission as a fraction of the value at the fill price.
    pub(super) commission: f32,
    /// Commission per unit.
    pub(super) commission_per_unit: f32,
    /// Least commission of an order, as a fraction of the starting equity.
    pub(super) min_commission: f32,
    /// Largest gross exposure that orders may lead to, in units of the equity; 0: no limit.
    pub(super) max_leverage: f32,
    /// Rate a year on short positions.
    pub(super) borrow_rate: f32,
    /// Rate a year on cash.
    pub(super) cash_rate: f32,
    /// Rate a year on borrowed cash.
    pub(super) margin_rate: f32,
    /// 1: positions or cash cost or earn something over time.
    pub(super) accrues: u32,
    /// Index of the first time between bars in the candles.
    pub(super) years: u32,
    /// Index of the first funding rate in the candles; 0: none.
    pub(super) funding: u32,
    /// Equity at which an account is closed, as a fraction of the starting equity.
    pub(super) bankruptcy: f32,
    /// Weight of the agent's own return in its reward.
    pub(super) own_weight: f32,
    /// Multiplier of the reward.
    pub(super) reward_scale: f32,
    /// Penalty per unit of drawdown increase.
    pub(super) drawdown_penalty: f32,
    /// Allowed actions, one bit each.
    pub(super) mask: u32,
    /// Always 0, but unknown to the compiler, which therefore cannot simplify the compensated sum.
    pub(super) zero: u32,
    /// Lowest level of a continuous action.
    pub(super) lowest: f32,
    /// Highest level of a continuous action.
    pub(super) highest: f32,
    pub(super) pad: [u32; 2],
    /// Target level of each discrete action.
    pub(super) levels: [f32; 32],
}

/// The rules of one market.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) spec: Spec,
    pub(super) continuous: bool,
    pub(super) parameters: Parameters,
    pub(super) starts: Starts,
}

impl Rules {
    /// Rejects a saved state that the kernel could not have written under these rules. The counters have been checked.
    ///
    /// # Errors
    /// The environment and the field at fault.
    pub(super) fn validate(&self, fields: &StateFields<'_>) -> Result<(), String> {
        let Self { spec, continuous, parameters, starts } = self;
        // A bankrupt account starts a new episode in the same step, so none is ever saved.
        let least = parameters.bankruptcy.max(f32::MIN_POSITIVE);
        fields.reals("equity", EQUITY as usize, least..=f32::MAX)?;
        fields.finite("remainder of the equity", EQUITY_REST as usize)?;
        fields.reals("peak of the equity", PEAK as usize, 1.0..=f32::MAX)?;
        fields.counts("bar", BAR as usize, parameters.first..=starts.last_bar() - 1)?;
        let levels = &parameters.levels[..spec.actions as usize];
        for agent in 0..spec.agents {
            let quantity = (QUANTITY + agent) as usize;
            fields.finite(&format!("quantity of instrument {agent}"), quantity)?;
            let level = quantity + spec.agents as usize;
            if *continuous {
                let range = parameters.lowest.min(0.0)..=parameters.highest.max(0.0);
                fields.reals(&format!("level of instrument {agent}"), level, range)?;
                continue;
            }
            for env in 0..fields.envs() {
                let found = fields.real(level, env);
                if found != 0.0 && !levels.contains(&found) {
                    return Err(format!(
                        "environment {env}: level of instrument {agent} is {found}, expected 0 or one of {levels:?}"
                    ));
                }
            }
        }
        for env in 0..fields.envs() {
            let [bar, step] = [BAR, TAKEN].map(|row| fields.word(row as usize, env));
            if !bar.checked_sub(step).is_some_and(|start| starts.contains(start)) {
                return Err(format!(
                    "environment {env}: bar {bar} cannot be reached in step {step} of an episode"
                ));
            }
        }
        Ok(())
    }
}

/// Number of 32-bit words of an environment's state.
fn words(agents: u32) -> u32 {
    QUANTITY + 2 * agents
}

/// Memory plan, without the candles.
pub(super) fn plan(agents: u32, envs: u32, steps: u32, ranges: usize) -> Plan {
    let mut plan = device_env::plan(words(agents), envs, steps, Some(size_of::<Parameters>()));
    plan.words("table", u64::from(agents) + Starts::words(ranges));
    plan
}

/// The environment but for its candles, table and episodes.
///
/// # Errors
/// [`crate::Error::Shader`] if the shader does not compose.
pub(super) fn builder(spec: Spec, continuous: bool, parameters: &Parameters) -> Result<DeviceEnvBuilder> {
    let functions = compose_all(&SHADER, &Variant::new(1).when("continuous", continuous))?;
    let n = spec.agents;
    let rows = Rows {
        state: vec![EQUITY, EQUITY_REST, PEAK, BAR],
        counters: [TAKEN, EPISODE, CUT, RETURN],
        agents: vec![[QUANTITY, 1], [QUANTITY + n, 1]],
    };
    let builder =
        DeviceEnv::builder(SHADER.name, functions, spec).parameters(parameters).rows(rows).trusted();
    Ok(if continuous { builder.continuous() } else { builder })
}

/// A market for everything that needs its kernel and no candles.
///
/// # Errors
/// None but for a mistake in this crate.
pub(super) fn example(continuous: bool) -> Result<DeviceEnv> {
    let actions = if continuous { 1 } else { 3 };
    let spec = Spec { agents: 2, obs_dim: observation_size(8), actions };
    let builder = builder(spec, continuous, &Parameters::default())?;
    builder.identity(String::new()).data_f32("candles", [0.0]).data_u32("table", [0]).time_limit(1).build()
}

#[cfg(test)]
#[path = "market_tests.rs"]
pub(super) mod tests;
