//! Aligns instruments with different bars to one time axis.

use super::LoadLimits;
use super::aligned_size::AlignedSize;
use super::candles::Candles;
use super::offsets::are_daily;
use super::rules::Bar;
use super::timestamp::show;
use crate::text::{self, shown};
use crate::{Error, Result};
use jiff::civil::{DateTime, Time};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Treatment of timestamps at which some instruments have a bar and others have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapPolicy {
    /// Return an error that names the missing bars.
    #[default]
    Reject,
    /// Keep only the timestamps at which every instrument has a bar. Funding rates of the bars between two of them are added to those of
    /// the later one.
    Drop,
    /// Start at the latest of the instruments' first bars and keep every timestamp from there on. A missing
    /// bar gets the previous close as open, high, low and close, and volume 0, and is marked in
    /// [`Candles::filled`]: no order fills at it. An instrument whose data end early keeps its last close, and
    /// its position can no longer be closed.
    ForwardFill,
}

impl GapPolicy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Reject, Self::Drop, Self::ForwardFill];

    /// The name used in settings and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::ForwardFill => "forward-fill",
        }
    }
}

impl fmt::Display for GapPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for GapPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
            let text = shown(text);
            let reason = format!("unknown gap policy `{text}`; choose `reject`, `drop` or `forward-fill`");
            Error::config("gaps", reason)
        })
    }
}

/// The bars of one instrument as read from its file: valid, with strictly increasing timestamps.
#[derive(Debug)]
pub(super) struct Series {
    pub symbol: String,
    pub bars: Vec<Bar>,
    /// Funding rates of the bars; empty if there are none.
    pub funding: Vec<f64>,
}

impl Series {
    fn timestamps(&self) -> impl Iterator<Item = DateTime> {
        self.bars.iter().map(|bar| bar.timestamp)
    }
}

/// Aligns the series by timestamp and sorts the instruments by symbol.
///
/// # Errors
/// [`Error::Data`] if the policy cannot give every instrument a bar at every timestamp, or if these are more bars than `limits` or the
/// memory allow.
pub(super) fn align(
    mut series: Vec<Series>,
    policy: GapPolicy,
    has_volume: bool,
    limits: &LoadLimits,
) -> Result<Candles> {
    series.sort_by(|left, right| left.symbol.cmp(&right.symbol));
    stamp_daily_bars_alike(&mut series);
    let timestamps = match policy {
        GapPolicy::Reject => same(&series)?,
        GapPolicy::Drop => common(&series)?,
        GapPolicy::ForwardFill => from_latest_start(&series)?,
    };

    let shape = (series.len(), timestamps.len());
    let funded = series.iter().any(|series| !series.funding.is_empty());
    let size = AlignedSize { shape, numbers: 4 + usize::from(has_volume) + usize::from(funded), policy };
    let bars = size.bars(limits)?;
    let mut columns: [Vec<f64>; 5] = Default::default();
    for column in columns.iter_mut().take(if has_volume { 5 } else { 4 }) {
        size.reserve(column, bars)?;
    }
    let mut filled = Vec::new();
    size.reserve(&mut filled, bars)?;
    let mut funding = funded.then(Vec::new);
    if let Some(funding) = &mut funding {
        size.reserve(funding, bars)?;
    }
    let (mut symbols, mut dropped) = (Vec::with_capacity(series.len()), Vec::with_capacity(series.len()));
    // Each series is freed as soon as it is copied, so that at most one instrument is in memory twice.
    for series in series {
        let real = copy(&series, &timestamps, &mut columns, &mut filled, has_volume)?;
        if let Some(funding) = &mut funding {
            funding.extend(due(&series, &timestamps));
        }
        dropped.push(series.bars.len() - real);
        symbols.push(series.symbol);
    }
    let failed = |error| Error::Data(format!("could not align the candles: {error}"));
    let array = |values: Vec<f64>| Array2::from_shape_vec(shape, values).map_err(failed);
    let [open, high, low, close, volume] = columns;
    let volume = if has_volume { Some(array(volume)?) } else { None };
    let candles =
        Candles::new(symbols, timestamps, array(open)?, array(high)?, array(low)?, array(close)?, volume)?;
    let mut candles = candles.with_filled(Array2::from_shape_vec(shape, filled).map_err(failed)?)?;
    if let Some(funding) = funding {
        candles = candles.with_funding(array(funding)?)?;
    }
    Ok(Candles { dropped, ..candles })
}

/// Reduces the timestamps to dates if all instruments have daily bars but stamp them at different times of day, as
/// exchanges in different time zones do.
fn stamp_daily_bars_alike(series: &mut [Series]) {
    let Some((first, others)) = series.split_first() else { return };
    if others.iter().all(|other| first.timestamps().eq(other.timestamps())) {
        return;
    }
    let Some(time) = first.timestamps().next().map(DateTime::time) else { return };
    if series.iter().all(|series| series.timestamps().all(|timestamp| timestamp.time() == time)) {
        return;
    }
    if series.iter().all(|series| are_daily(series.timestamps().map(|timestamp| (timestamp, timestamp)))) {
        for bar in series.iter_mut().flat_map(|series| &mut series.bars) {
            bar.timestamp = bar.timestamp.date().to_datetime(Time::midnight());
        }
    }
}

/// Appends the bars of one instrument at `timestamps`, and to `filled` whether each was filled; returns the number of bars that
/// were not.
fn copy(
    series: &Series,
    timestamps: &[DateTime],
    columns: &mut [Vec<f64>; 5],
    filled: &mut Vec<bool>,
    has_volume: bool,
) -> Result<usize> {
    let mut bars = series.bars.iter().peekable();
    let mut latest: Option<&Bar> = None;
    let mut real = 0;
    for timestamp in timestamps {
        while let Some(bar) = bars.next_if(|bar| bar.timestamp <= *timestamp) {
            latest = Some(bar);
        }
        let bar = latest.ok_or_else(|| {
            Error::Data(format!("{} has no bar at or before {}", shown(&series.symbol), show(*timestamp)))
        })?;
        filled.push(bar.timestamp != *timestamp);
        let values = if bar.timestamp == *timestamp {
            real += 1;
            bar.values
        } else {
            let [.., close, _] = bar.values;
            [close, close, close, close, 0.0]
        };
        let used = if has_volume { 5 } else { 4 };
        for (column, value) in columns.iter_mut().zip(values).take(used) {
            column.push(value);
        }
    }
    Ok(real)
}

/// Funding rates at `timestamps`: 0 where the series has no bar. The rates of bars that were left out fall due with the next bar
/// that is kept, because positions are held across them; those before the first timestamp are nobody's.
fn due(series: &Series, timestamps: &[DateTime]) -> impl Iterator<Item = f64> {
    let start = timestamps.first().copied();
    let rates = series.timestamps().zip(series.funding.iter().copied());
    let mut rates = rates.filter(move |(at, _)| Some(*at) >= start).peekable();
    timestamps.iter().map(move |timestamp| {
        let mut sum = 0.0;
        while let Some((_, rate)) = rates.next_if(|(at, _)| at <= timestamp) {
            sum += rate;
        }
        sum
    })
}

/// The common timestamps, if all series have the same ones.
fn same(series: &[Series]) -> Result<Vec<DateTime>> {
    if let Some((first, others)) = series.split_first()
        && others.iter().all(|other| first.timestamps().eq(other.timestamps()))
    {
        return Ok(first.timestamps().collect());
    }
    const MOST_SYMBOLS: usize = 10;
    let all = union(series);
    let (mut texts, mut more) = (Vec::new(), 0);
    for series in series {
        if series.bars.len() == all.len() {
            continue;
        }
        if texts.len() == MOST_SYMBOLS {
            more += 1;
            continue;
        }
        texts.push(missing(series, &all));
    }
    if more > 0 {
        texts.push(format!("{more} more instruments lack bars"));
    }
    Err(Error::Data(format!(
        "the instruments have different bars: {}; complete the files, or choose the gap policy `drop` \
         (keep only the timestamps that all instruments have) or `forward-fill` (repeat the previous close, \
         with volume 0)",
        text::reason(texts.join("; "))
    )))
}

/// "`A` lacks 7 of 100 bars (five dates, ...)".
fn missing(series: &Series, all: &[DateTime]) -> String {
    const MOST_DATES: usize = 5;
    let mut own = series.timestamps().peekable();
    let missing = all.iter().filter(|timestamp| own.next_if_eq(timestamp).is_none());
    let mut dates: Vec<String> = missing.take(MOST_DATES).map(|timestamp| show(*timestamp)).collect();
    let count = all.len() - series.bars.len();
    if count > MOST_DATES {
        dates.push("...".into());
    }
    format!("{} lacks {count} of {} bars ({})", shown(&series.symbol), all.len(), dates.join(", "))
}

/// Timestamps that all series have.
fn common(series: &[Series]) -> Result<Vec<DateTime>> {
    const FEWEST: usize = 2;
    let Some((first, others)) = series.split_first() else { return Ok(Vec::new()) };
    let mut timestamps: Vec<DateTime> = first.timestamps().collect();
    for other in others {
        let mut own = other.timestamps().peekable();
        timestamps.retain(|timestamp| {
            while own.next_if(|it| it < timestamp).is_some() {}
            own.next_if_eq(timestamp).is_some()
        });
    }
    if timestamps.len() < FEWEST {
        return Err(Error::Data(format!(
            "the instruments have only {} timestamps in common, at least {FEWEST} are needed ({}); remove the \
             instrument that does not overlap, or choose the gap policy `forward-fill`",
            timestamps.len(),
            periods(series)
        )));
    }
    Ok(timestamps)
}

/// All timestamps at or after the latest of the series' first bars.
fn from_latest_start(series: &[Series]) -> Result<Vec<DateTime>> {
    let Some(start) = series.iter().filter_map(|series| series.timestamps().next()).max() else {
        return Ok(Vec::new());
    };
    for ended in series {
        if ended.timestamps().last().is_none_or(|last| last < start) {
            return Err(Error::Data(format!(
                "{} has no bars at or after {}, the first bar of the instrument that starts last ({}); remove one of \
                 the two instruments",
                shown(&ended.symbol),
                show(start),
                periods(series)
            )));
        }
    }
    let mut timestamps = union(series);
    timestamps.retain(|timestamp| *timestamp >= start);
    Ok(timestamps)
}

fn union(series: &[Series]) -> Vec<DateTime> {
    let mut all: Vec<DateTime> = series.iter().flat_map(Series::timestamps).collect();
    // The stable sort detects sorted runs, and the input is one increasing run per series.
    all.sort();
    all.dedup();
    all
}

/// "A: 2004-08-19 to 2013-03-01, 2148 bars; B: ...".
fn periods(series: &[Series]) -> String {
    const MOST: usize = 10;
    let mut texts: Vec<String> = Vec::new();
    for Series { symbol, bars, .. } in series.iter().take(MOST) {
        if let (Some(first), Some(last)) = (bars.first(), bars.last()) {
            let (first, last) = (show(first.timestamp), show(last.timestamp));
            texts.push(format!("{}: {first} to {last}, {} bars", shown(symbol), bars.len()));
        }
    }
    if series.len() > MOST {
        texts.push("...".into());
    }
    text::reason(texts.join("; "))
}

#[cfg(test)]
mod tests;
