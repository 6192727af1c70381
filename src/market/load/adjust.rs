//! Prices adjusted for splits and dividends, and jumps that look like splits that nobody adjusted.

use super::File;
use super::report::Finding;
use super::series::FileSeries;
use crate::market::rules::{Bar, PriceRange, check};
use crate::market::timestamp::show;
use crate::text::shown;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Use of a column of adjusted closes.
///
/// With [`Adjust::Auto`], every price of a bar is multiplied by adjusted close over close, so that returns include
/// dividends and splits make no jump. Volume counts shares, which a dividend does not change: the volume before a split (a step of
/// that ratio which is a usual one, such as 2, 3/2 or 1/10) is multiplied by the split's ratio, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjust {
    /// Adjust prices if the file has an adjusted close.
    #[default]
    Auto,
    /// Take prices as they are.
    None,
}

impl Adjust {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Auto, Self::None];

    /// The name used in settings and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Adjust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Adjust {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|choice| choice.name() == text).ok_or_else(|| {
            Error::config("adjust", format!("unknown adjustment `{}`; choose `auto` or `none`", shown(text)))
        })
    }
}

/// Usual numbers of new shares for an old one; a reverse split has the inverse.
const RATIOS: &[f64] =
    &[1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 100.0];
/// The smallest ratio that is searched for in prices: smaller jumps happen without a split.
const LEAST_JUMP: f64 = 2.0;

/// The usual ratio within `tolerance` (of the logarithm) of `ratio`.
fn usual(ratio: f64, least: f64, tolerance: f64) -> Option<f64> {
    let forward = RATIOS.iter().filter(|it| **it >= least);
    let all = forward.flat_map(|it| [*it, 1.0 / it]);
    let distance = |it: f64| (ratio / it).ln().abs();
    all.filter(|it| distance(*it) <= tolerance).min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
}

/// Multiplies prices by the series' factors, and volumes before splits by their ratios. `None` if there are no factors.
///
/// # Errors
/// [`Error::Candles`] if an adjusted price or volume is beyond the limits of [`check`] or [`PriceRange`].
pub(super) fn adjust(series: &mut FileSeries, files: &[File]) -> Result<Option<Finding>> {
    let column = |file: usize| files.get(file).and_then(|file| file.adjusted.as_deref()).unwrap_or_default();
    let factors = std::mem::take(&mut series.factors);
    if factors.is_empty() {
        return Ok(None);
    }
    let (mut shares, mut splits) = (1.0, 0);
    let mut range = PriceRange::default();
    let mut later: Option<(f64, f64)> = None;
    for (bar, factor) in series.bars.iter_mut().zip(&factors).rev() {
        let [.., close, _] = bar.values;
        if let Some((later_factor, later_close)) = later
            && let Some(ratio) = usual(later_factor / factor.ratio, 0.0, 0.02)
            // A large dividend changes the factor as well, but leaves prices where they are.
            && (later_close * ratio / close).ln().abs() < 0.4
        {
            shares *= ratio;
            splits += 1;
        }
        later = Some((factor.ratio, close));
        let [prices @ .., volume] = &mut bar.values;
        prices.iter_mut().for_each(|price| *price *= factor.ratio);
        *volume *= shares;
        let at = bar.timestamp;
        let named = |(field, reason)| (field, format!("{} {}: {reason}", shown(&series.symbol), show(at)));
        let checked = check(&series.symbol, bar).and_then(|_| range.with(bar).map_err(named));
        range = checked.map_err(|(_, reason)| {
            let path = files.get(factor.file).map_or("".as_ref(), |file| file.path.as_path());
            let reason = format!("after adjusting: {reason}; or read the prices as they are (adjust = none)");
            factor.position.fault(path, Some(column(factor.file)), reason)
        })?;
    }
    let ratios = || factors.iter().map(|factor| factor.ratio);
    let range = [ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max)];
    Ok(Some(Finding::Adjusted { column: column(series.file).to_string(), factors: range, splits }))
}

/// Jumps from a close to the next open by about the ratio of a usual split, after which the price stays, and which are far larger
/// than what the instrument usually does.
pub(super) fn unadjusted_splits(bars: &[Bar]) -> Vec<Finding> {
    let close = |bar: &Bar| bar.values[3];
    let mut usual_move = None;
    let mut found = Vec::new();
    for (index, pair) in bars.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        let (last, open) = (close(before), after.values[0]);
        // Most bars end here.
        if (0.6..1.7).contains(&(last / open)) {
            continue;
        }
        let Some(ratio) = usual(last / open, LEAST_JUMP, 0.05) else { continue };
        let stays = |bar: &Bar| (last / close(bar) / ratio).ln().abs() < 0.25;
        // A bad tick jumps back: the price before and after the jump has to be the usual one.
        let stayed = |bar: &Bar| (close(bar) / last).ln().abs() < 0.25;
        let earlier = index.checked_sub(1).and_then(|index| bars.get(index));
        if !stays(after) || !bars.get(index + 2).is_none_or(stays) || !earlier.is_none_or(stayed) {
            continue;
        }
        let usual_move = *usual_move.get_or_insert_with(|| median_move(bars));
        if ratio.ln().abs() > 8.0 * usual_move {
            found.push(Finding::LooksLikeSplit { timestamp: after.timestamp, ratio, prices: [last, open] });
        }
    }
    found
}

/// Median of the absolute log returns from close to close.
fn median_move(bars: &[Bar]) -> f64 {
    let mut moves: Vec<f64> = bars
        .windows(2)
        .filter_map(|pair| match pair {
            [before, after] => Some((after.values[3] / before.values[3]).ln().abs()),
            _ => None,
        })
        .collect();
    let middle = moves.len().saturating_sub(1) / 2;
    if moves.is_empty() { 0.0 } else { *moves.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn bars(closes: &[f64]) -> Vec<Bar> {
        let bar = |(day, close): (i8, &f64)| Bar {
            timestamp: date(2024, 1, day).at(0, 0, 0, 0),
            offset: None,
            values: [*close, *close, *close, *close, 10.0],
        };
        (1..).zip(closes).map(bar).collect()
    }

    #[test]
    fn jumps_that_look_like_splits() {
        let at = |day| date(2024, 1, day).at(0, 0, 0, 0);
        for (closes, expected) in [
            (&[100.0, 101.0, 25.1, 25.0][..], vec![(at(3), 4.0)]),
            (&[100.0, 101.0, 25.1][..], vec![(at(3), 4.0)]),
            (&[10.0, 10.1, 101.5, 101.0], vec![(at(3), 0.1)]),
            (&[100.0, 50.0, 50.5, 17.0, 17.0], vec![(at(2), 2.0), (at(4), 3.0)]),
            // A bad tick, a crash that is no usual ratio, and an instrument that always moves like this.
            (&[100.0, 101.0, 1010.0, 101.0, 101.0], vec![]),
            (&[100.0, 101.0, 57.0, 57.0], vec![]),
            (&[100.0, 50.0, 51.0, 101.0, 100.0, 50.0, 24.0, 24.0, 50.0], vec![]),
            (&[100.0], vec![]),
        ] {
            let found: Vec<_> = unadjusted_splits(&bars(closes))
                .into_iter()
                .filter_map(|finding| match finding {
                    Finding::LooksLikeSplit { timestamp, ratio, .. } => Some((timestamp, ratio)),
                    _ => None,
                })
                .collect();
            assert_eq!(found, expected, "{closes:?}");
        }
    }
}
