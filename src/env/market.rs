//! Advances the market by one bar in all environments: the device implementation of [`super::ledger`].
//!
//! A decision made after the close of bar t fills at the open of t+1 with commission and slippage and is marked to market at the
//! close of t+1. At a filled bar, whose open is given as 0, it waits. Amounts are in units of the starting equity. The reward of agent i is scale (w own_i + (1 - w) portfolio - penalty max(0, deeper)), where own_i = ln(1 + N
//! (pnl_i - cost_i + rate_i) / E), portfolio = ln(E' / E) and deeper is the increase in drawdown. An episode terminates when equity is at
//! or below the bankruptcy level, and is truncated at full length.
//!
//! Shapes: data f32 `[bar][instrument][feature]`, then prices `[bar][instrument][gap, move, open or 0, close]`, years `[bar]` and
//! funding `[bar][instrument]`; table u32: the bits of the slippage of each instrument, then [`Starts::table`]; state
//! `[field][env]`; all other buffers as in [`super::RolloutBuffers`].

use super::starts::Starts;
use super::{EnvRecording, MAX_EPISODES, StateFields};
use crate::Result;
use crate::gpu::{Access, Class, Gpu, Kernel, Plan, Shader, TABLE_ENTRY, Variant};
use crate::nn::Storage;

/// The kernel's source.
pub(super) const SHADER: Shader = crate::shaders::shader!("env/market");

/// State fields of an environment, without the quantity and the level of each instrument.
const FIELDS: u32 = 8;

/// Mirrors `Market` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    /// Step within the rollout.
    pub(super) step: u32,
    /// Steps per rollout.
    pub(super) steps: u32,
    /// Number of environments.
    pub(super) envs: u32,
    /// Number of instruments; each is an agent.
    pub(super) agents: u32,
    /// Features per bar and instrument.
    pub(super) features: u32,
    /// Number of actions.
    pub(super) actions: u32,
    /// 1: start a new episode in every environment and do nothing else.
    pub(super) reset: u32,
    /// First bar at which an episode can start.
    pub(super) first: u32,
    /// Last bar of an episode after which another one follows.
    pub(super) last: u32,
    /// Steps per episode.
    pub(super) length: u32,
    /// Index of the first price in the data.
    pub(super) prices: u32,
    /// Low 32 bits of the seed.
    pub(super) seed_low: u32,
    /// High 32 bits of the seed.
    pub(super) seed_high: u32,
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
    /// Index of the first time between bars in the data.
    pub(super) years: u32,
    /// Index of the first funding rate in the data; 0: none.
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
    /// 1: an action is a real number in (-1, 1), mapped to the levels from `lowest` to `highest`.
    pub(super) weights: u32,
    /// Lowest level of a continuous action.
    pub(super) lowest: f32,
    /// Highest level of a continuous action.
    pub(super) highest: f32,
    /// Target level of each action.
    pub(super) levels: [f32; 32],
}

/// Number of 32-bit words of the state.
pub(super) fn state_words(agents: u32, envs: u32) -> u64 {
    u64::from(FIELDS + 2 * agents) * u64::from(envs)
}

/// Memory plan: the state, and a parameter table with one entry per step and one for the reset.
pub(super) fn plan(agents: u32, envs: u32, steps: u32, ranges: usize) -> Plan {
    let mut plan = Plan::new();
    plan.words("market state", state_words(agents, envs));
    plan.words("market parameters", (u64::from(steps) + 1) * TABLE_ENTRY / 4);
    plan.words("market table", u64::from(agents) + Starts::words(ranges));
    plan
}

/// Rejects a saved state that the kernel could not have written under these rules.
///
/// # Errors
/// The environment and the field at fault.
pub(super) fn validate(rules: &Parameters, starts: &Starts, words: &[u32]) -> Result<(), String> {
    let (agents, envs) = (rules.agents as usize, rules.envs as usize);
    let fields = StateFields::new(words, FIELDS as usize + 2 * agents, envs)?;
    // A bankrupt account starts a new episode in the same step, so none is ever saved.
    fields.reals("equity", 0, rules.bankruptcy.max(f32::MIN_POSITIVE)..=f32::MAX)?;
    fields.finite("remainder of the equity", 1)?;
    fields.reals("peak of the equity", 2, 1.0..=f32::MAX)?;
    fields.finite("return", 3)?;
    fields.counts("bar", 4, rules.first..=starts.last_bar() - 1)?;
    fields.counts("step of the episode", 5, 0..=rules.length - 1)?;
    fields.counts("episode", 6, 1..=MAX_EPISODES)?;
    fields.counts("truncated episodes", 7, 0..=rules.steps.div_ceil(rules.length))?;
    let levels = &rules.levels[..rules.actions as usize];
    for agent in 0..agents {
        fields.finite(&format!("quantity of instrument {agent}"), 8 + agent)?;
        let level = 8 + agents + agent;
        if rules.weights == 1 {
            let range = rules.lowest.min(0.0)..=rules.highest.max(0.0);
            fields.reals(&format!("level of instrument {agent}"), level, range)?;
            continue;
        }
        for env in 0..envs {
            let found = fields.real(level, env);
            if found != 0.0 && !levels.contains(&found) {
                return Err(format!(
                    "environment {env}: level of instrument {agent} is {found}, expected 0 or one of {levels:?}"
                ));
            }
        }
    }
    for env in 0..envs {
        let (bar, step) = (fields.word(4, env), fields.word(5, env));
        if !bar.checked_sub(step).is_some_and(|start| starts.contains(start)) {
            return Err(format!(
                "environment {env}: bar {bar} cannot be reached in step {step} of an episode"
            ));
        }
    }
    Ok(())
}

/// The kernel configuration for an adapter class and the observations' storage.
pub(super) fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub(super) fn kernel(gpu: &Gpu, storage: Storage) -> Result<Kernel> {
    let [parameters, actions, rewards, state, observations, ends, episodes] = EnvRecording::ACCESS;
    let (data, table) = (Access::Read, Access::Read);
    let access = [parameters, actions, rewards, state, observations, ends, episodes, data, table];
    Kernel::trusted(gpu, &SHADER, variant(gpu.class(), storage), &access, size_of::<Parameters>())
}

#[cfg(test)]
#[path = "market_tests.rs"]
mod tests;
