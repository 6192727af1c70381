//! Joins the files of one instrument: a file a month, or one file a download.

use super::report::{Finding, LoadReport};
use super::series::FileSeries;
use super::symbol::{Ending, common_part};
use super::{File, fault};
use crate::market::timestamp::show;
use crate::{Error, Result};
use jiff::civil::DateTime;
use std::collections::HashMap;

/// Joins series with the same symbol, and series whose files have names that differ by a date or a number only.
///
/// # Errors
/// If two files have different bars of a symbol in the same period.
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
        joined.extend(concatenated(group, report));
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
        if conflict(&mut group).is_none() {
            for series in &mut group {
                series.symbol.clone_from(&name);
            }
            result.extend(concatenated(group, report));
            continue;
        }
        for series in &group {
            // Numbers distinguish instruments as often as parts of one: only dates are worth a note.
            if common_part(&series.symbol).is_some_and(|(_, ending)| ending == Ending::Date) {
                report.note(&series.symbol, Finding::NotJoined { common: name.clone() });
            }
        }
        result.extend(group);
    }
    Ok(result)
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
    /// The first bar that differs; `None` if only one of them has an adjusted close.
    at: Option<DateTime>,
}

impl Conflict {
    fn error(&self, files: &[File]) -> Error {
        let [first, second] = self.files.map(|file| files.get(file).map(|file| file.path.as_path()));
        let (first, second) = (first.unwrap_or("".as_ref()), second.unwrap_or("".as_ref()));
        let (symbol, other) = (&self.symbol, first.display());
        let reason = match self.at {
            Some(at) => format!(
                "{symbol} also appears in {other}, with different bars around {}; keep every bar of an instrument in one file, or \
                 give different instruments different symbols",
                show(at)
            ),
            None => format!(
                "{symbol} also appears in {other}, but only one of the files has an adjusted close; add the column, or read \
                 both without it (adjust = none)"
            ),
        };
        fault(second, None, None, reason)
    }
}

/// Sorts the series by time and looks for bars in which they differ where they overlap.
fn conflict(group: &mut [FileSeries]) -> Option<Conflict> {
    let start = |series: &FileSeries| series.bars.first().map(|bar| bar.timestamp);
    let end = |series: &FileSeries| series.bars.last().map(|bar| bar.timestamp);
    group.sort_by_key(start);
    let (mut latest, others) = group.split_first()?;
    for series in others {
        let conflict =
            |at| Some(Conflict { symbol: series.symbol.clone(), files: [latest.file, series.file], at });
        if latest.factors.is_empty() != series.factors.is_empty() {
            return conflict(None);
        }
        let overlap = series.bars.iter().take_while(|bar| Some(bar.timestamp) <= end(latest));
        let from = latest.bars.partition_point(|bar| Some(bar.timestamp) < start(series));
        let mut known = latest.bars.iter().skip(from);
        for bar in overlap {
            if known.next().is_none_or(|it| (it.timestamp, it.values) != (bar.timestamp, bar.values)) {
                return conflict(Some(bar.timestamp));
            }
        }
        if end(series) > end(latest) {
            latest = series;
        }
    }
    None
}

/// Appends series that are sorted by time and have no conflict.
fn concatenated(group: Vec<FileSeries>, report: &mut LoadReport) -> Option<FileSeries> {
    let (files, mut repeated) = (group.len(), 0);
    let mut parts = group.into_iter();
    let mut whole = parts.next()?;
    for mut part in parts {
        let last = whole.bars.last().map(|bar| bar.timestamp);
        let known = part.bars.partition_point(|bar| Some(bar.timestamp) <= last);
        repeated += known;
        whole.bars.extend(part.bars.drain(known..));
        let factors = known.min(part.factors.len());
        whole.factors.extend(part.factors.drain(factors..));
        whole.clamped += part.clamped;
    }
    if files > 1 {
        report.note(&whole.symbol, Finding::Joined { files, repeated });
    }
    Some(whole)
}
