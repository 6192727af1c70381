//! The bars at which episodes of the market can start.

use std::ops::Range;

use super::trading::Episodes;
use crate::market::MarketData;
use crate::{Error, Result};

/// The bars at which episodes of one length can start, in ascending ranges with bars between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Starts {
    ranges: Vec<Range<u32>>,
    /// Steps of an episode.
    pub(super) length: u32,
}

impl Starts {
    /// Checks that the ranges of `episodes` can be traded; ranges that are too short for an episode are left out.
    ///
    /// # Errors
    /// [`Error::Data`] for a range that cannot be traded or is not after the one before, [`Error::Config`] if no range has room for an
    /// episode.
    pub(super) fn new(data: &MarketData, episodes: &Episodes, episode_length: u32) -> Result<Self> {
        let (ranges, length) = match episodes {
            Episodes::Random(bars) => (std::slice::from_ref(bars), episode_length as usize),
            Episodes::Within(ranges) => (&ranges[..], episode_length as usize),
            Episodes::Whole(bars) => (std::slice::from_ref(bars), bars.len().saturating_sub(1)),
        };
        for bars in ranges {
            data.check_tradable(bars)?;
        }
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(Error::Data(format!(
                "the bars {}..{} do not come after {}..{}: ranges of episodes are ascending and do not overlap",
                pair[1].start, pair[1].end, pair[0].start, pair[0].end
            )));
        }
        let room = |bars: &Range<usize>| {
            (bars.len() > length).then(|| bars.start as u32..(bars.end - length) as u32)
        };
        let starts: Vec<_> = ranges.iter().filter_map(room).collect();
        if starts.is_empty() {
            let longest = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
            return Err(Error::config(
                "episode_length",
                match ranges.len() {
                    0 | 1 => format!("{length} steps do not fit in the {longest} bars of the training split"),
                    all => {
                        format!(
                            "{length} steps do not fit in any of the {all} ranges of training bars, of at most {longest}"
                        )
                    }
                },
            ));
        }
        Ok(Self { ranges: starts, length: length as u32 })
    }

    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn first(&self) -> u32 {
        self.ranges[0].start
    }

    /// Number of bars at which an episode can start.
    pub(super) fn count(&self) -> u32 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// The last bar of the latest episode.
    pub(super) fn last_bar(&self) -> u32 {
        self.ranges[self.ranges.len() - 1].end - 1 + self.length
    }

    pub(super) fn contains(&self, bar: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&bar))
    }

    /// The table by which the kernel finds bars: the number of starts, the number of later ranges, and for each of them the number
    /// of starts before it and of the bars to skip from there on.
    pub(super) fn table(&self) -> Vec<u32> {
        let mut before = 0;
        let mut later = Vec::new();
        let mut skipped = 0;
        for pair in self.ranges.windows(2) {
            before += pair[0].end - pair[0].start;
            skipped += pair[1].start - pair[0].end;
            later.extend([before, skipped]);
        }
        [&[self.count(), later.len() as u32 / 2], &later[..]].concat()
    }

    /// Words of the table.
    pub(super) fn words(ranges: usize) -> u64 {
        2 * ranges as u64
    }

    /// Distinguishes these starts from others.
    pub(super) fn identity(&self) -> String {
        let later: Vec<_> = self.table().into_iter().skip(2).map(|word| word.to_string()).collect();
        let more = if later.is_empty() { String::new() } else { format!(",later {}", later.join(" ")) };
        format!("{},{},{}{more}", self.first(), self.count(), self.length)
    }
}
