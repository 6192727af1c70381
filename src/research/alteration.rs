//! The audit of future alteration: later candles are changed, and nothing earlier may move.

use std::ops::Range;

use jiff::civil::DateTime;
use ndarray::Array2;

use crate::gpu::Gpu;
use crate::market::{Candles, ExtraFeatures, MarketData, Scaling, ScalingStatistics};
use crate::policy::Decisions;
use crate::random::Stream;
use crate::{Error, Result};

/// Name of the random stream.
const STREAM: u32 = 0xA17E_4ED0;

/// A feature that changed when only later candles did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leak {
    /// Name of the feature.
    pub feature: String,
    /// Symbol of the instrument.
    pub symbol: String,
    /// First bar whose value changed.
    pub bar: DateTime,
    /// Last bar that was not altered.
    pub unaltered: DateTime,
}

/// Result of [`future_alteration`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alteration {
    /// Indices of the last bars that were not altered.
    pub cuts: Vec<usize>,
    /// The first leak of every feature that leaks.
    pub leaks: Vec<Leak>,
    /// Whether features of altered bars changed at every cut: the audit could have found something.
    pub conclusive: bool,
}

/// The candles with other prices and volumes after bar `cut`: every bar by a random factor of its own, every instrument by one for all
/// bars. Bars stay consistent.
#[must_use]
pub fn altered(candles: &Candles, cut: usize, seed: u64) -> Candles {
    let mut altered = candles.clone();
    let mut random = Stream::new(seed, STREAM);
    for instrument in 0..candles.instruments() {
        let level = 0.5 * random.normal();
        for bar in cut + 1..candles.bars() {
            let factor = (level + 0.05 * random.normal()).clamp(-2.0, 2.0).exp();
            let prices = [&mut altered.open, &mut altered.high, &mut altered.low, &mut altered.close];
            for prices in prices.into_iter().chain(&mut altered.volume) {
                if let Some(value) = prices.get_mut([instrument, bar]) {
                    *value *= factor;
                }
            }
        }
    }
    altered
}

/// Alters the candles after `cuts` bars of `bars`, evenly spread, and compares the features of all earlier bars, bit by bit. `extra`
/// computes the features of the user's own, which is how a leaking one is found.
///
/// # Errors
/// [`Error::Config`] for no cuts, [`Error::Data`] for bars outside the candles or fewer than two; as [`MarketData::new`], and errors of
/// `extra` and of the device.
pub fn future_alteration(
    gpu: &Gpu,
    candles: &Candles,
    extra: impl Fn(&Candles) -> Result<ExtraFeatures>,
    scaling: &ScalingStatistics,
    bars: Range<usize>,
    cuts: usize,
    seed: u64,
) -> Result<Alteration> {
    if cuts == 0 {
        return Err(Error::config("cuts", "0 is too few: candles are altered after at least one bar"));
    }
    if bars.len() < 2 || bars.end > candles.bars() {
        return Err(Error::Data(format!(
            "candles cannot be altered within bars {}..{} of {}",
            bars.start,
            bars.end,
            candles.bars()
        )));
    }
    let scaling = Scaling::Given(scaling.clone());
    let features = |candles: &Candles| -> Result<Vec<f32>> {
        let data = MarketData::new(gpu, candles, &extra(candles)?, &scaling)?;
        gpu.read(data.buffer())
    };
    let names = match &scaling {
        Scaling::Given(given) => &given.features,
        Scaling::Fit(_) | Scaling::FitWithin(_) => {
            return Err(Error::Data("the scaling is not given".into()));
        }
    };
    let columns = names.len() * candles.instruments();
    let original = features(candles)?;
    // The last bar has nothing after it to alter.
    let cuts: Vec<usize> = (1..=cuts).map(|cut| bars.start + (bars.len() - 1) * cut / (cuts + 1)).collect();
    let mut leaks: Vec<Leak> = Vec::new();
    let mut conclusive = true;
    for (index, cut) in cuts.iter().copied().enumerate() {
        let other = features(&altered(candles, cut, seed.wrapping_add(index as u64)))?;
        let changed = |place: &usize| original[*place].to_bits() != other[*place].to_bits();
        let (before, after) = ((cut + 1) * columns, candles.bars() * columns);
        for place in (0..before).filter(changed) {
            let (bar, column) = (place / columns, place % columns);
            let leak = Leak {
                feature: names[column % names.len()].clone(),
                symbol: candles.symbols[column / names.len()].clone(),
                bar: candles.timestamps[bar],
                unaltered: candles.timestamps[cut],
            };
            if !leaks.iter().any(|known| known.feature == leak.feature) {
                leaks.push(leak);
            }
        }
        conclusive &= (before..after).any(|place| changed(&place));
    }
    Ok(Alteration { cuts, leaks, conclusive })
}

/// Decisions and rewards that changed when only later candles did, and those that may, summed over all cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Decisions up to the last bar that was not altered: none may change.
    pub earlier_decisions: usize,
    /// Decisions after it: if none changes, the audit of decisions could not have found anything.
    pub later_decisions: usize,
    /// Rewards that were due up to the last bar that was not altered: none may change.
    pub earlier_rewards: usize,
    /// Rewards that were due after it: if none changes, the audit of rewards could not have found anything.
    pub later_rewards: usize,
}

/// Lets `decide` trade `bars` of the candles, and of candles that are altered after each of `cuts`, with the seeds of
/// [`future_alteration`], and counts the decisions and the rewards that differ by a bit ([`Policy::decisions`](crate::policy::Policy::decisions)). `decide`
/// does all that is done to candles before they are traded, so that what it adds to them, funding rates for instance, is audited too.
///
/// # Errors
/// [`Error::Data`] for a cut that is not one of `bars` but the last; [`Error::Shape`] for decisions on other bars; errors of `decide`.
pub fn moved_decisions(
    candles: &Candles,
    bars: &Range<usize>,
    cuts: &[usize],
    seed: u64,
    decide: impl Fn(&Candles) -> Result<Decisions>,
) -> Result<Moved> {
    let checked = |candles: &Candles| {
        let decisions = decide(candles)?;
        let wanted = (bars.len().saturating_sub(1), candles.instruments());
        for found in [decisions.targets.dim(), decisions.rewards.dim()] {
            if found != wanted {
                return Err(Error::shape(
                    "decisions and rewards",
                    format!("{wanted:?}"),
                    format!("{found:?}"),
                ));
            }
        }
        Ok(decisions)
    };
    if let Some(cut) = cuts.iter().find(|cut| !bars.contains(cut) || !bars.contains(&(**cut + 1))) {
        return Err(Error::Data(format!(
            "candles cannot be altered after bar {cut} of the bars {}..{}",
            bars.start, bars.end
        )));
    }
    let original = checked(candles)?;
    let mut moved = Moved::default();
    for (index, cut) in cuts.iter().copied().enumerate() {
        let other = checked(&altered(candles, cut, seed.wrapping_add(index as u64)))?;
        let earlier = |rows: usize, changed: &[usize]| changed.iter().filter(|row| **row < rows).count();
        let decisions = changed_rows(&original.targets, &other.targets, |value| value.to_bits());
        // A reward is due one bar after its decision.
        let rewards = changed_rows(&original.rewards, &other.rewards, |value| value.to_bits().into());
        let known = cut - bars.start;
        moved.earlier_decisions += earlier(known + 1, &decisions);
        moved.earlier_rewards += earlier(known, &rewards);
        moved.later_decisions += decisions.len() - earlier(known + 1, &decisions);
        moved.later_rewards += rewards.len() - earlier(known, &rewards);
    }
    Ok(moved)
}

/// The row of every value that differs in its bits.
fn changed_rows<T>(own: &Array2<T>, other: &Array2<T>, bits: impl Fn(&T) -> u64) -> Vec<usize> {
    let pairs = own.indexed_iter().zip(other);
    let changed = pairs.filter(|((_, own), other)| bits(own) != bits(other));
    changed.map(|(((row, _), _), _)| row).collect()
}

#[cfg(test)]
#[path = "alteration_tests.rs"]
mod tests;
