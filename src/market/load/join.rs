//! Joins the files of one instrument: a file a month, or one file a download.

use super::report::{Finding, LoadReport, NotJoinedReason};
use super::series::{Factor, FileSeries};
use super::symbol::{Ending, common_part};
use super::{File, fault};
use crate::market::rules::{Bar, MOST_RATIO, PriceRange};
use crate::market::timestamp::show;
use crate::market::{are_of_two_lengths, median_spacing};
use crate::text::{self, shown};
use crate::{Error, Result};
use jiff::civil::DateTime;
use std::collections::HashMap;

/// Joins series with the same symbol, and series whose files have names that differ by a date or a number only.
///
/// # Errors
/// If two files of one symbol have different bars in the same period, equal bars with different adjustments, or prices in different
/// units.
pub(super) fn join(
    series: Vec<FileSeries>,
    files: &[File],
    report: &mut LoadReport,
) -> Result<Vec<FileSeries>> {
    let mut joined = Vec::new();
    for mut group in grouped(series, |series| Some(series.symbol.clone())) {
        if let Some(conflict) = conflict(&mut group) {
            return Err(conflict.error(files));
        }
        joined.extend(concatenated(group, files, report)?);
    }
    let symbols: std::collections::HashSet<String> = joined.iter().map(|it| it.symbol.clone()).collect();
    let common = |series: &FileSeries| {
        let (common, _) = common_part(&series.symbol).filter(|_| series.named_by_file)?;
        (!symbols.contains(common)).then(|| common.to_string())
    };
    let mut result = Vec::new();
    for mut group in grouped(joined, common) {
        let name = group.first().and_then(common);
        let Some(name) = name.filter(|_| group.len() > 1) else {
            result.extend(group);
            continue;
        };
        let Some(reason) = apart(&mut group, files)? else {
            for series in &mut group {
                series.symbol.clone_from(&name);
            }
            result.extend(concatenated(group, files, report)?);
            continue;
        };
        for series in &group {
            // Numbers distinguish instruments as often as parts of one: overlapping bars are worth a note for dates only.
            if named_by_date(series) || matches!(reason, NotJoinedReason::Spacing(_)) {
                let finding = Finding::NotJoined { common: name.clone(), reason: reason.clone() };
                report.note(&series.symbol, finding);
            }
        }
        result.extend(group);
    }
    Ok(result)
}

/// Sorts series whose names have a part in common by time. Returns why they are different instruments, if they are.
///
/// # Errors
/// If two of them have the same bars with different adjustments: they are one instrument that cannot be joined.
fn apart(group: &mut [FileSeries], files: &[File]) -> Result<Option<NotJoinedReason>> {
    if let Some(conflict) = conflict(group) {
        return match conflict.difference {
            Difference::Bars(_) => Ok(Some(NotJoinedReason::BarsDiffer)),
            Difference::Column(column) => Ok(Some(NotJoinedReason::Column(column))),
            Difference::Factors { .. } => Err(conflict.error(files)),
        };
    }
    if group.iter().all(named_by_date) {
        return Ok(None);
    }
    // The first bars are enough.
    let spacing =
        |series: &FileSeries| median_spacing(series.bars.iter().take(1000).map(|bar| bar.timestamp));
    let mut spacings = group.iter().filter_map(spacing);
    let Some(first) = spacings.next() else { return Ok(None) };
    let other = spacings.find(|other| are_of_two_lengths(first, *other));
    Ok(other.map(|other| NotJoinedReason::Spacing([first, other])))
}

fn named_by_date(series: &FileSeries) -> bool {
    common_part(&series.symbol).is_some_and(|(_, ending)| ending == Ending::Date)
}

/// Groups series by key, in the order of their first members; a series without a key is a group of its own.
fn grouped(series: Vec<FileSeries>, key: impl Fn(&FileSeries) -> Option<String>) -> Vec<Vec<FileSeries>> {
    let mut groups: Vec<Vec<FileSeries>> = Vec::new();
    let mut index = HashMap::new();
    for one in series {
        let at = key(&one).map_or(groups.len(), |key| *index.entry(key).or_insert(groups.len()));
        match groups.get_mut(at) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

/// Two series that cannot be joined.
struct Conflict {
    symbol: String,
    files: [usize; 2],
    difference: Difference,
}

enum Difference {
    /// The first bar that differs.
    Bars(DateTime),
    /// Only one of them has this column.
    Column(&'static str),
    /// Equal bars with different adjustments.
    Factors { at: DateTime, factors: [Factor; 2] },
}

impl Conflict {
    fn error(&self, files: &[File]) -> Error {
        let path = |file: usize| files.get(file).map_or("".as_ref(), |file| file.path.as_path());
        let [first, second] = self.files.map(path);
        let (symbol, other) = (shown(&self.symbol), text::path(first));
        match &self.difference {
            Difference::Bars(at) => {
                let reason = format!(
                    "{symbol} also appears in {other}, with different bars around {}; keep every bar of an instrument in one \
                     file, or give different instruments different symbols",
                    show(*at)
                );
                fault(second, None, None, reason)
            }
            Difference::Column(column) => {
                let otherwise = match *column {
                    FUNDING => " (0 or empty without funding)",
                    _ => ", or read both without it (adjust = none)",
                };
                let reason = format!(
                    "{symbol} also appears in {other}, but only one of the files has {column}; add the column{otherwise}"
                );
                fault(second, None, None, reason)
            }
            Difference::Factors { at, factors: [one, two] } => {
                let reason = format!(
                    "{symbol} {}: adjusted close / close is {:.6}, but {:.6} for the same bar in {} ({}); joined, the adjusted \
                     price would jump where one file ends. Download the whole period into one file, or read the prices as \
                     they are (adjust = none)",
                    show(*at),
                    two.ratio,
                    one.ratio,
                    text::path(path(one.file)),
                    one.position
                );
                let column = files.get(two.file).and_then(|file| file.adjusted.as_deref());
                two.position.fault(path(two.file), column, reason)
            }
        }
    }
}

const ADJUSTED_CLOSE: &str = "an adjusted close";
const FUNDING: &str = "funding rates";

/// Adjustment factors of one bar in two downloads are equal up to this fraction: closes have few digits.
const SAME_FACTOR: f64 = 1e-6;

/// Sorts the series by time and looks for bars in which they differ where they overlap.
fn conflict(group: &mut [FileSeries]) -> Option<Conflict> {
    let start = |series: &FileSeries| series.bars.first().map(|bar| bar.timestamp);
    let end = |series: &FileSeries| series.bars.last().map(|bar| bar.timestamp);
    group.sort_by_key(start);
    let (mut latest, others) = group.split_first()?;
    for series in others {
        let conflict = |difference| {
            let files = [latest.file, series.file];
            Some(Conflict { symbol: series.symbol.clone(), files, difference })
        };
        if latest.factors.is_empty() != series.factors.is_empty() {
            return conflict(Difference::Column(ADJUSTED_CLOSE));
        }
        if latest.funding.is_empty() != series.funding.is_empty() {
            return conflict(Difference::Column(FUNDING));
        }
        let overlap = series.bars.iter().take_while(|bar| Some(bar.timestamp) <= end(latest));
        let from = latest.bars.partition_point(|bar| Some(bar.timestamp) < start(series));
        let mut known = latest.bars.iter().skip(from);
        let mut funding = latest.funding.iter().skip(from).zip(&series.funding);
        let factors = latest.factors.iter().skip(from).zip(&series.factors);
        let mut factors = factors.map(|(one, two)| [*one, *two]);
        for bar in overlap {
            let same = |known: &Bar| (known.timestamp, known.values) == (bar.timestamp, bar.values);
            let same_rate = funding.next().is_none_or(|(one, two)| one == two);
            if !known.next().is_some_and(same) || !same_rate {
                return conflict(Difference::Bars(bar.timestamp));
            }
            if let Some(factors @ [one, two]) = factors.next()
                && (one.ratio / two.ratio - 1.0).abs() > SAME_FACTOR
            {
                return conflict(Difference::Factors { at: bar.timestamp, factors });
            }
        }
        if end(series) > end(latest) {
            latest = series;
        }
    }
    None
}

/// The range of the prices of all series.
///
/// # Errors
/// If the lowest price of one and the highest of another are too far apart; both files are named.
fn common_range(group: &[FileSeries], files: &[File]) -> Result<PriceRange> {
    let lowest = group.iter().min_by(|one, two| one.range.low.total_cmp(&two.range.low));
    let highest = group.iter().max_by(|one, two| one.range.high.total_cmp(&two.range.high));
    let (Some(lowest), Some(highest)) = (lowest, highest) else { return Ok(PriceRange::default()) };
    let range = PriceRange { low: lowest.range.low, high: highest.range.high };
    if range.is_narrow() {
        return Ok(range);
    }
    let path = |series: &FileSeries| files.get(series.file).map_or("".as_ref(), |file| file.path.as_path());
    let reason = format!(
        "{}: the highest price here is {:e}, and the lowest price of the same instrument in {} {:e}; they may differ by a factor of \
         {MOST_RATIO:e}, so that 32-bit numbers hold every return: quote both in one unit, or give different instruments different symbols",
        shown(&highest.symbol),
        range.high,
        text::path(path(lowest)),
        range.low
    );
    Err(fault(path(highest), None, None, reason))
}

/// Appends series that are sorted by time and have no conflict.
///
/// # Errors
/// As [`common_range`].
fn concatenated(
    group: Vec<FileSeries>,
    files: &[File],
    report: &mut LoadReport,
) -> Result<Option<FileSeries>> {
    let range = common_range(&group, files)?;
    let (files, mut repeated) = (group.len(), 0);
    let mut parts = group.into_iter();
    let Some(mut whole) = parts.next() else { return Ok(None) };
    whole.range = range;
    for mut part in parts {
        let last = whole.bars.last().map(|bar| bar.timestamp);
        let known = part.bars.partition_point(|bar| Some(bar.timestamp) <= last);
        repeated += known;
        whole.bars.extend(part.bars.drain(known..));
        let factors = known.min(part.factors.len());
        whole.factors.extend(part.factors.drain(factors..));
        let rates = known.min(part.funding.len());
        whole.funding.extend(part.funding.drain(rates..));
        whole.in_utc |= part.in_utc;
        whole.clamped += part.clamped;
    }
    if files > 1 {
        report.note(&whole.symbol, Finding::Joined { files, repeated });
    }
    Ok(Some(whole))
}
