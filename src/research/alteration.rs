//! The audit of future alteration: later candles are changed, and nothing earlier may move.

use std::ops::Range;

use jiff::civil::DateTime;

use crate::gpu::Gpu;
use crate::market::{Candles, ExtraFeatures, MarketData, Scaling, ScalingStatistics};
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

#[cfg(test)]
#[path = "alteration_tests.rs"]
mod tests;
