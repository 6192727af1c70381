//! The stationary bootstrap: resamples of dependent returns in blocks of random length.
//!
//! Source: Politis & Romano [1994, "The stationary bootstrap"].

use serde::{Deserialize, Serialize};

use crate::random::Stream;
use crate::{Error, Result};

/// The settings of everything that resamples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resampling {
    /// Mean block length in bars, from 1 to ceil(min(3 sqrt(T), T/3)) for T bars; by default chosen from the returns by
    /// [`automatic_block_length`](super::automatic_block_length).
    pub block_length: Option<f64>,
    /// Number of resamples, from 10 to 1,000,000.
    pub resamples: u32,
    /// Seed: the same seed gives the same numbers.
    pub seed: u64,
}

impl Default for Resampling {
    /// Automatic block length, 2000 resamples, seed 0.
    fn default() -> Self {
        Self { block_length: None, resamples: 2000, seed: 0 }
    }
}

impl Resampling {
    /// The bootstrap of `bars` bars, with the mean block length of `automatic` if none is given.
    pub(super) fn bootstrap(
        &self,
        bars: usize,
        automatic: impl FnOnce() -> Result<f64>,
    ) -> Result<StationaryBootstrap> {
        if !(10..=1_000_000).contains(&self.resamples) {
            let reason = format!("{} is not from 10 to 1,000,000", self.resamples);
            return Err(Error::config("resamples", reason));
        }
        let longest = longest_blocks(bars);
        let length = match self.block_length {
            Some(given) if given > longest => {
                // Resamples would be rotations of the series, with its own mean.
                let reason = format!("{given} is too long for {bars} bars: at most {longest}");
                return Err(Error::config("block_length", reason));
            }
            given => given.map_or_else(automatic, Ok)?,
        };
        StationaryBootstrap::new(bars, length, self.seed)
    }
}

/// Longest mean blocks for a number of bars (Patton, Politis & White 2009), at least 1.
pub(super) fn longest_blocks(bars: usize) -> f64 {
    let count = bars as f64;
    f64::min(3.0 * count.sqrt(), count / 3.0).ceil().max(1.0)
}

/// Generator of the bars of resamples.
///
/// A resample is a sequence of blocks of consecutive bars. A block starts at a random bar, has a geometric length with the
/// given mean, and goes on at the first bar when it reaches the last. Resample r of a seed does not depend on how many there
/// are: it draws from [`Stream`] number r.
///
/// ```
/// use phalanx::research::StationaryBootstrap;
///
/// let bootstrap = StationaryBootstrap::new(250, 5.0, 7)?;
/// assert_eq!(bootstrap.indices(3).len(), 250);
/// assert_eq!(bootstrap.indices(3), bootstrap.indices(3));
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StationaryBootstrap {
    bars: usize,
    block_length: f64,
    seed: u64,
}

impl StationaryBootstrap {
    /// A generator for `bars` bars, with blocks of `block_length` bars on average.
    ///
    /// # Errors
    /// [`Error::Config`] without bars, or for a block length below 1 or not finite.
    pub fn new(bars: usize, block_length: f64, seed: u64) -> Result<Self> {
        if bars == 0 {
            return Err(Error::config("bars", "there are no bars to resample"));
        }
        if !(block_length.is_finite() && block_length >= 1.0) {
            return Err(Error::config(
                "block_length",
                format!("{block_length} is not a number of at least 1"),
            ));
        }
        Ok(Self { bars, block_length, seed })
    }

    /// Mean block length in bars.
    #[must_use]
    pub fn block_length(&self) -> f64 {
        self.block_length
    }

    /// The bars of a resample, as many as there are bars.
    #[must_use]
    pub fn indices(&self, resample: u32) -> Vec<usize> {
        let mut indices = Vec::new();
        self.write_indices(resample, &mut indices);
        indices
    }

    /// The same into a buffer, whose content is replaced.
    pub(super) fn write_indices(&self, resample: u32, indices: &mut Vec<usize>) {
        let mut stream = Stream::new(self.seed, resample);
        indices.clear();
        indices.reserve(self.bars);
        // ln of the probability that a block goes on: -infinity for blocks of one bar.
        let going_on = (-self.block_length.recip()).ln_1p();
        while indices.len() < self.bars {
            let start = ((stream.uniform() * self.bars as f64) as usize).min(self.bars - 1);
            // A geometric length by inversion; a cast saturates.
            let length = ((stream.uniform().ln() / going_on) as usize).saturating_add(1);
            let length = length.min(self.bars - indices.len());
            indices.extend((start..self.bars).chain(0..start).take(length));
        }
    }
}

#[cfg(test)]
mod tests;
