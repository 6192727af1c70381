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
        let candles = aligned(vec![series("B", &[2, 3]), series("A", &[2, 3])], policy, true).expect("fits");
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
    let error =
        align(all(), GapPolicy::ForwardFill, true, &limits).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("1000 instruments x 1001 timestamps are 1001000 bars (39 MiB), more than 900000: choose the gap policy `drop`, load \
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
    assert!(text.contains("s19 lacks 1 of 3 bars (2020-01-03); 2 more instruments lack bars; "), "{text}");
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
        Err("setting `gaps`: unknown gap policy `ffill`; choose `reject`, `drop` or `forward-fill`".into())
    );
}
