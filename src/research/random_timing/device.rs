//! The device's form of the test: one invocation trades the account of one draw, in f32 and in units of the starting equity, by the rules
//! of [`crate::env::ledger`]. Out come the equity, and compensated sums of the returns of a bar and of their squares.
//!
//! Shapes: prices f32 `[bar][instrument][gap, move, open or 0, close]`; rates f32: slippage `[instrument]`, years `[bar]`, funding
//! `[bar][instrument]`; targets u32 `[decision][instrument][bits, number]`; shifts u32 `[draw]`; positions u32
//! `[instrument][draw][bits of units, number of the target]`; accounts f32 `[field][draw]`.

use std::ops::Range;

use ndarray::ArrayView2;

use crate::backtest::ReplayOptions;
use crate::gpu::{Access, Arena, Budget, Command, Gpu, Kernel, Plan, Recorder, Shader, Variant};
use crate::market::{AccountData, Candles};
use crate::{Error, Result};

/// The kernel's source.
pub(in crate::research) const SHADER: Shader = crate::shaders::shader!("research/random_timing");

/// Fields of an account on the device.
const FIELDS: usize = 10;

/// Most decisions of one dispatch: displays freeze, and drivers reset the device, when a dispatch takes seconds.
const MOST_DECISIONS: u64 = 2048;

/// Most iterations of all loops of an invocation in one dispatch. Software adapters (llvmpipe) stop them after 65,535.
const MOST_ITERATIONS: u64 = 60_000;

/// Mirrors `Timing` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(in crate::research) struct Parameters {
    /// Decisions in all: one less than bars.
    pub(in crate::research) decisions: u32,
    /// Number of instruments.
    pub(in crate::research) instruments: u32,
    /// Number of draws.
    pub(in crate::research) draws: u32,
    /// First decision of the dispatch.
    pub(in crate::research) first: u32,
    /// End of its decisions.
    pub(in crate::research) end: u32,
    /// Commission as a fraction of the value at the fill price.
    pub(in crate::research) commission: f32,
    /// Commission per unit.
    pub(in crate::research) commission_per_unit: f32,
    /// Least commission of an order, as a fraction of the starting equity.
    pub(in crate::research) min_commission: f32,
    /// Largest gross exposure that orders may lead to, in units of the equity; 0: no limit.
    pub(in crate::research) max_leverage: f32,
    /// Rate a year on short positions.
    pub(in crate::research) borrow_rate: f32,
    /// Rate a year on cash.
    pub(in crate::research) cash_rate: f32,
    /// Rate a year on borrowed cash.
    pub(in crate::research) margin_rate: f32,
    /// 1: positions or cash cost or earn something over time.
    pub(in crate::research) accrues: u32,
    /// 1: there are funding rates.
    pub(in crate::research) funded: u32,
    /// Equity at which an account is closed, as a fraction of the starting equity.
    pub(in crate::research) bankruptcy: f32,
    /// Always 0, but unknown to the compiler, which therefore cannot simplify the compensated sums.
    pub(in crate::research) zero: u32,
}

/// Iterations of the loops of an invocation for one decision.
fn iterations(instruments: u64, limited: bool) -> u64 {
    1 + instruments * if limited { 2 } else { 1 }
}

/// Decisions of one dispatch.
fn decisions_of_a_dispatch(instruments: u64, limited: bool) -> u64 {
    (MOST_ITERATIONS / iterations(instruments, limited)).clamp(1, MOST_DECISIONS)
}

/// Memory plan: everything but the parameters, of which every dispatch has 256 bytes.
fn plan(decisions: u64, instruments: u64, draws: u64, funded: bool) -> Plan {
    let bars = decisions + 1;
    let mut plan = Plan::new();
    plan.words("prices", bars * instruments * 4);
    plan.words("rates", instruments + bars + if funded { bars * instruments } else { 0 });
    plan.words("targets", decisions * instruments * 2);
    plan.words("shifts", draws);
    plan.words("positions", instruments * draws * 2);
    plan.words("accounts", FIELDS as u64 * draws);
    plan
}

/// Bits and number of every target, `[decision][instrument]`. Numbers tell apart all targets, also those that are equal in f32: an order
/// is placed where a target changes. The number of 0 is 0.
fn numbered(targets: ArrayView2<'_, f64>) -> Vec<[u32; 2]> {
    let mut distinct: Vec<f64> = targets.iter().copied().filter(|target| *target != 0.0).collect();
    distinct.sort_unstable_by(f64::total_cmp);
    distinct.dedup();
    let place = |target: f64| distinct.partition_point(|other| *other < target) as u32 + 1;
    let number = |target: f64| if target == 0.0 { 0 } else { place(target) };
    targets.iter().map(|target| [(*target as f32).to_bits(), number(*target)]).collect()
}

/// Parameters of every dispatch.
fn parameters(
    (decisions, instruments): (usize, usize),
    options: &ReplayOptions,
    draws: usize,
    funded: bool,
) -> Vec<Parameters> {
    let ReplayOptions { costs, max_leverage, starting_equity, bankruptcy_level, .. } = options;
    let all = Parameters {
        decisions: decisions as u32,
        instruments: instruments as u32,
        draws: draws as u32,
        commission: costs.commission_rate() as f32,
        commission_per_unit: costs.commission_per_unit as f32,
        min_commission: (costs.min_commission / starting_equity) as f32,
        max_leverage: max_leverage.unwrap_or(0.0) as f32,
        borrow_rate: costs.borrow_rate as f32,
        cash_rate: costs.cash_rate as f32,
        margin_rate: costs.margin_rate as f32,
        accrues: u32::from(costs.accrues() || funded),
        funded: u32::from(funded),
        bankruptcy: *bankruptcy_level as f32,
        ..Parameters::default()
    };
    let step = decisions_of_a_dispatch(instruments as u64, max_leverage.is_some()) as usize;
    let part =
        |first: usize| Parameters { first: first as u32, end: decisions.min(first + step) as u32, ..all };
    (0..decisions).step_by(step).map(part).collect()
}

/// The account of a draw after the last bar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// In units of the starting equity.
    pub(super) equity: f64,
    /// Sum of the returns of all bars.
    pub(super) returns: f64,
    /// Sum of their squares.
    pub(super) squares: f64,
    /// Smallest distance of the equity from the level at which the account is closed, in units of the equity one bar earlier.
    pub(super) nearest: f64,
}

/// Trades the targets `[decision][instrument]` once for each shift, which are below the number of decisions. The arguments are those of a
/// replay that succeeded: all shapes match, and targets and prices are finite.
///
/// # Errors
/// [`Error::Buffer`] or [`Error::Budget`] for too little memory, [`Error::Config`] for more instruments than a software adapter can trade;
/// errors of the device.
pub(super) fn trade(
    gpu: &Gpu,
    (candles, bars): (&Candles, &Range<usize>),
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
    shifts: &[usize],
) -> Result<Vec<Account>> {
    let (decisions, instruments) = targets.dim();
    let draws = shifts.len();
    let needed = iterations(instruments as u64, options.max_leverage.is_some());
    if gpu.stops_long_loops() && needed > MOST_ITERATIONS {
        return Err(Error::config(
            "instruments",
            format!(
                "software adapters (llvmpipe) stop loops after 65,535 iterations, and a bar of {instruments} instruments needs {needed}: \
             test fewer instruments at a time, or on the CPU"
            ),
        ));
    }
    let funded = candles.funding.is_some();
    let plan = plan(decisions as u64, instruments as u64, draws as u64, funded);
    let what = format!("a test of {draws} accounts of {instruments} instruments over {} bars", bars.len());
    fits(&Budget::of(gpu, None), &plan, &what)?;

    let kernel = kernel(gpu)?;
    let parameters = parameters((decisions, instruments), options, draws, funded);
    let table = gpu.uniform_table("random timing", &parameters)?;
    let data = AccountData::new(candles, bars.clone());
    let slippage: Vec<f32> = (0..instruments).map(|i| options.costs.slippage_rate(i) as f32).collect();
    let shifts: Vec<u32> = shifts.iter().map(|shift| *shift as u32).collect();
    let arena = Arena::allocate(gpu, &plan)?;
    let write = |name, bytes: &[u8]| gpu.write(arena.get(name)?, 0, bytes);
    write("prices", bytemuck::cast_slice(&data.prices))?;
    write("rates", bytemuck::cast_slice(&[slippage, data.years, data.funding].concat()))?;
    write("targets", bytemuck::cast_slice(&numbered(targets)))?;
    write("shifts", bytemuck::cast_slice(&shifts))?;
    let names = ["prices", "rates", "targets", "shifts", "positions", "accounts"];
    let buffers = names.map(|name| arena.get(name)).into_iter().collect::<Result<Vec<_>>>()?;
    let group = kernel.bind(gpu, &[&[&table], &buffers[..]].concat())?;
    let [x, y] = kernel.variant.rows(draws as u32);
    let stride = gpu.uniform_stride::<Parameters>();
    let mut recorder = Recorder::new(gpu);
    for part in 0..parameters.len() as u32 {
        // A submission each: displays stay alive.
        recorder.run(&[Command::dispatch_at(&kernel, &group, part, stride, [x, y, 1])])?;
    }
    let accounts: Vec<f32> = gpu.read(arena.get("accounts")?)?;
    let field = |index: usize, draw: usize| f64::from(accounts[index * draws + draw]);
    let account = |draw| Account {
        equity: field(0, draw) + field(1, draw),
        returns: field(2, draw) + field(3, draw),
        squares: field(4, draw) + field(5, draw),
        nearest: field(6, draw),
    };
    Ok((0..draws).map(account).collect())
}

/// Compiles the kernel.
fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Read, Read, Read, Read, Write, Write];
    Kernel::trusted(gpu, &SHADER, Variant::wide(gpu.class()), &access, size_of::<Parameters>())
}

/// Checks that a plan fits the device. A buffer that can be bound has fewer elements than an index of 32 bits can tell apart.
fn fits(budget: &Budget, plan: &Plan, what: &str) -> Result<()> {
    let advice = "test fewer bars, instruments or draws, or on the CPU";
    budget.binds(plan, what, advice)?;
    if budget.holds(plan) {
        return Ok(());
    }
    Err(Error::Budget {
        what: what.into(),
        needed: plan.bytes().div_ceil(1 << 20),
        budget: budget.total >> 20,
        advice: advice.into(),
    })
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
