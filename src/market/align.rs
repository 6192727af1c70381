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
mod tests {
    use super::*;
    use jiff::civil::date;
    use ndarray::array;

    fn aligned(series: Vec<Series>, policy: GapPolicy, has_volume: bool) -> Result<Candles> {
        align(series, policy, has_volume, &LoadLimits::default())
    }

    /// Bars on days of January 2020; the close is 10 times the day, the volume the day.
    fn series(symbol: &str, days: &[i8]) -> Series {
        let bar = |day: &i8| {
            let close = f64::from(*day) * 10.0;
            let values = [close - 1.0, close + 2.0, close - 3.0, close, f64::from(*day)];
            Bar { timestamp: date(2020, 1, *day).at(0, 0, 0, 0), offset: None, values }
        };
        Series { symbol: symbol.into(), bars: days.iter().map(bar).collect(), funding: Vec::new() }
    }

    fn days(candles: &Candles) -> Vec<i8> {
        candles.timestamps.iter().map(|timestamp| timestamp.day()).collect()
    }

    #[test]
    fn equal_bars_pass_every_policy_unchanged() {
        for policy in GapPolicy::ALL {
            let candles =
                aligned(vec![series("B", &[2, 3]), series("A", &[2, 3])], policy, true).expect("fits");
            assert_eq!(candles.symbols, ["A", "B"]);
            assert_eq!(candles.open, array![[19.0, 29.0], [19.0, 29.0]]);
            assert_eq!(candles.high, array![[22.0, 32.0], [22.0, 32.0]]);
            assert_eq!(candles.low, array![[17.0, 27.0], [17.0, 27.0]]);
            assert_eq!(candles.close, array![[20.0, 30.0], [20.0, 30.0]]);
            assert_eq!(candles.volume, Some(array![[2.0, 3.0], [2.0, 3.0]]));
            assert_eq!((candles.filled, candles.dropped), (None, vec![0, 0]));
        }
    }

    #[test]
    fn drop_keeps_common_timestamps() {
        let input =
            vec![series("A", &[1, 2, 4, 5, 8]), series("B", &[2, 3, 4, 8, 9]), series("C", &[1, 2, 5, 8])];
        let candles = aligned(input, GapPolicy::Drop, false).expect("two bars remain");
        assert_eq!(days(&candles), [2, 8]);
        assert_eq!(candles.close, array![[20.0, 80.0], [20.0, 80.0], [20.0, 80.0]]);
        assert_eq!(candles.volume, None);
        assert_eq!((candles.filled, candles.dropped), (None, vec![3, 3, 2]));
    }

    #[test]
    fn drop_needs_two_bars() {
        let error = aligned(vec![series("A", &[1, 2, 3]), series("B", &[3, 4])], GapPolicy::Drop, true);
        assert_eq!(
            error.map(|_| ()).map_err(|error| error.to_string()),
            Err("the instruments have only 1 timestamps in common, at least 2 are needed (A: 2020-01-01 to \
                 2020-01-03, 3 bars; B: 2020-01-03 to 2020-01-04, 2 bars); remove the instrument that does \
                 not overlap, or choose the gap policy `forward-fill`"
                .into())
        );
    }

    #[test]
    fn forward_fill_repeats_the_close_from_the_latest_start_on() {
        // B starts on day 3, between two bars of A, so A's bar on day 3 repeats the close of day 2.
        let input = vec![series("A", &[1, 2, 5]), series("B", &[3, 4, 5, 6])];
        let candles = aligned(input, GapPolicy::ForwardFill, true).expect("overlap");
        assert_eq!(days(&candles), [3, 4, 5, 6]);
        assert_eq!(candles.open, array![[20.0, 20.0, 49.0, 50.0], [29.0, 39.0, 49.0, 59.0]]);
        assert_eq!(candles.high, array![[20.0, 20.0, 52.0, 50.0], [32.0, 42.0, 52.0, 62.0]]);
        assert_eq!(candles.low, array![[20.0, 20.0, 47.0, 50.0], [27.0, 37.0, 47.0, 57.0]]);
        assert_eq!(candles.close, array![[20.0, 20.0, 50.0, 50.0], [30.0, 40.0, 50.0, 60.0]]);
        assert_eq!(candles.volume, Some(array![[0.0, 0.0, 5.0, 0.0], [3.0, 4.0, 5.0, 6.0]]));
        assert_eq!(candles.filled, Some(array![[true, true, false, true], [false; 4]]));
        assert_eq!(candles.dropped, [2, 0], "bars before the latest start");
    }

    #[test]
    fn forward_fill_refuses_an_instrument_without_bars_in_the_period() {
        let error = aligned(vec![series("A", &[1, 2]), series("B", &[3, 4])], GapPolicy::ForwardFill, true);
        assert_eq!(
            error.map(|_| ()).map_err(|error| error.to_string()),
            Err("A has no bars at or after 2020-01-03, the first bar of the instrument that starts last (A: \
                 2020-01-01 to 2020-01-02, 2 bars; B: 2020-01-03 to 2020-01-04, 2 bars); remove one of the two \
                 instruments"
                .into())
        );
    }

    /// The same series, its bars at `hour` o'clock.
    fn at_hour(mut series: Series, hour: i8) -> Series {
        for bar in &mut series.bars {
            bar.timestamp = bar.timestamp.date().at(hour, 0, 0, 0);
        }
        series
    }

    #[test]
    fn daily_bars_at_different_times_of_day_are_aligned_by_date() {
        let input = || vec![at_hour(series("A", &[2, 3, 6]), 21), at_hour(series("B", &[2, 3, 6]), 17)];
        for policy in GapPolicy::ALL {
            let candles = aligned(input(), policy, true).expect("the same dates");
            assert_eq!(candles.timestamps, [2, 3, 6].map(|day| date(2020, 1, day).at(0, 0, 0, 0)));
            assert_eq!(candles.close, array![[20.0, 30.0, 60.0], [20.0, 30.0, 60.0]]);
        }
        // One time of day is kept, gaps or not.
        let input = vec![at_hour(series("A", &[2, 3, 6]), 21), at_hour(series("B", &[2, 6]), 21)];
        let candles = aligned(input, GapPolicy::Drop, true).expect("two bars");
        assert_eq!(candles.timestamps, [2, 6].map(|day| date(2020, 1, day).at(21, 0, 0, 0)));
        // One instrument with two bars a day: nothing is daily.
        let mut twice = at_hour(series("A", &[2, 3]), 9);
        twice.bars.insert(1, at_hour(series("A", &[2]), 17).bars.remove(0));
        let error = aligned(vec![twice, at_hour(series("B", &[2, 3]), 17)], GapPolicy::Reject, true);
        let error = error.map(|_| ()).expect_err("different bars").to_string();
        assert!(error.contains("A lacks 1 of 4 bars (2020-01-03T17:00:00)"), "{error}");
    }

    /// A thousand instruments whose bars have timestamps of their own are a million bars when filled.
    #[test]
    fn filled_bars_are_counted_before_they_are_allocated() {
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let one = |second: i64| {
            let timestamp = start.saturating_add(jiff::SignedDuration::from_secs(second));
            Bar { timestamp, offset: None, values: [1.0; 5] }
        };
        let all = || -> Vec<Series> {
            let own = |index: i64| Series {
                symbol: format!("S{index}"),
                bars: vec![one(index), one(10_000 + index)],
                funding: Vec::new(),
            };
            (0..1000).map(own).collect()
        };
        let mut limits = LoadLimits { bars: 900_000, ..LoadLimits::default() };
        let error = align(all(), GapPolicy::ForwardFill, true, &limits)
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("1000 instruments x 1001 timestamps are 1001000 bars of 39 MiB, more than 900000: choose the gap policy `drop`, load \
                 fewer instruments or a shorter period, or raise data.limits.bars"
                .into())
        );
        limits.bars = 1_001_000;
        assert!(align(all(), GapPolicy::ForwardFill, false, &limits).is_ok());
    }

    #[test]
    fn reject_bounds_its_list() {
        let mut input = vec![series("full", &[1, 2, 3])];
        for index in 10..22 {
            input.push(series(&format!("s{index}"), &[1, 2]));
        }
        let error = aligned(input, GapPolicy::Reject, true).map(|_| ()).map_err(|error| error.to_string());
        let text = error.expect_err("gaps");
        assert!(
            text.contains("s19 lacks 1 of 3 bars (2020-01-03); 2 more instruments lack bars; "),
            "{text}"
        );
        assert!(!text.contains("s20") && !text.contains("full"), "{text}");
    }

    #[test]
    fn policies_have_one_spelling_everywhere() {
        for policy in GapPolicy::ALL {
            assert_eq!(policy.name().parse::<GapPolicy>().ok(), Some(policy));
            assert_eq!(serde_json::to_value(policy).ok(), Some(policy.name().into()));
            assert_eq!(policy.to_string(), policy.name());
        }
        assert_eq!(GapPolicy::default(), GapPolicy::Reject);
        assert_eq!(
            "ffill".parse::<GapPolicy>().map_err(|error| error.to_string()),
            Err("setting `gaps`: unknown gap policy `ffill`; choose `reject`, `drop` or `forward-fill`"
                .into())
        );
    }
}
