//! The history of one instrument, and its features on the CPU.

use std::collections::VecDeque;

use super::super::data;
use super::super::features::{FEATURES, LOOK_BACK};
use super::super::rules::PriceRange;
use super::super::sources::INDICATORS;
use super::LiveBar;

/// Closes and volumes that the features look back on.
const HISTORY: usize = LOOK_BACK + 1;

/// The last real bars of an instrument.
#[derive(Clone, Debug, Default)]
pub(super) struct Instrument {
    /// Real bars so far.
    pub(super) bars: usize,
    pub(super) last: Option<LiveBar>,
    /// Latest last.
    closes: VecDeque<f64>,
    volumes: VecDeque<f64>,
    /// Indicators at the last real bar, in the order of [`INDICATORS`].
    pub(super) values: [f64; INDICATORS.len()],
    pub(super) prices: PriceRange,
}

impl Instrument {
    pub(super) fn add(&mut self, bar: LiveBar) {
        self.bars += 1;
        self.prices = PriceRange { low: self.prices.low.min(bar.low), high: self.prices.high.max(bar.high) };
        self.last = Some(bar);
        for (values, value) in [(&mut self.closes, bar.close), (&mut self.volumes, bar.volume)] {
            values.push_back(value);
            if values.len() > HISTORY {
                values.pop_front();
            }
        }
    }

    /// The features in the order of [`FEATURES`], in f32 as `shaders/market/features.wgsl` computes them.
    pub(super) fn features(&self) -> Option<[f32; FEATURES.len()]> {
        let bar = self.last?;
        let price = bar.close as f32;
        let back =
            |by: usize| self.closes.len().checked_sub(1 + by).and_then(|at| self.closes.get(at)).copied();
        let past_return =
            |by: usize| back(by).map_or(0.0, |before| (bar.close - before) as f32 / before as f32);
        let gap = back(1).map_or(0.0, |before| (bar.open - before) as f32 / before as f32);
        let share = |part: f32, whole: f32| if whole > 0.0 { part / whole } else { 0.5 };
        let range = (bar.high - bar.low) as f32;
        let [rsi, macd, macd_hist, upper, middle, lower, atr, mom, stoch_k, stoch_d] = self.values;
        // Bands are prices; the kernel reads them less the close.
        let [upper, middle, lower] = [upper, middle, lower].map(|band| (band - bar.close) as f32);
        let [rsi, macd, macd_hist, atr, mom, stoch_k, stoch_d] =
            [rsi, macd, macd_hist, atr, mom, stoch_k, stoch_d].map(|value| value as f32);
        let width = upper - lower;
        let window = self.volumes.len().min(LOOK_BACK);
        let recent = self.volumes.iter().rev().take(window);
        let volume = recent.fold(0.0, |sum, volume| sum + *volume as f32) / window as f32;
        Some([
            past_return(1),
            past_return(5),
            past_return(20),
            gap,
            range / price,
            share((bar.close - bar.low) as f32, range) - 0.5,
            rsi / 100.0 - 0.5,
            macd / price,
            macd_hist / price,
            share(-lower, width) - 0.5,
            width / (price + middle),
            atr / price,
            mom / price,
            stoch_k / 100.0 - 0.5,
            stoch_d / 100.0 - 0.5,
            if volume > 0.0 { bar.volume as f32 / volume - 1.0 } else { 0.0 },
        ])
    }
}

/// One value as `shaders/market/scale.wgsl` scales it.
pub(super) fn scaled(value: f32, [mean, deviation]: [f32; 2]) -> f32 {
    let useful = deviation > 1e-6 * mean.abs() && deviation > 1e-20;
    if !useful || !value.is_finite() {
        return 0.0;
    }
    ((value - mean) / deviation).clamp(-data::LIMIT, data::LIMIT)
}
