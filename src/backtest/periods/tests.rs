use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::*;

const MINUTE: i64 = 1;
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// The opening hours of a market, from the minute of the week (Monday 00:00 is 0) and the date.
type Open = fn(i64, DateTime) -> bool;

/// Bars every `minutes` minutes of `days` days from Monday 2023-01-02 on, while the market is open.
fn bars(minutes: i64, days: i64, open: Open) -> Vec<DateTime> {
    let start = date(2023, 1, 2).at(0, 0, 0, 0);
    let bars = (0..days * DAY / minutes).map(|bar| (bar * minutes, start + (bar * minutes).minutes()));
    bars.filter(|(minute, bar)| open(minute % (7 * DAY), *bar)).map(|(_, bar)| bar).collect()
}

/// Bars on weekdays, in Monday = 0 .. Sunday = 6, from `from` to before `to`, in minutes of the day. A session that ends
/// after midnight has `to` above a day.
fn session(minute: i64, weekdays: &[i64], from: i64, to: i64) -> bool {
    let within = |minute: i64| weekdays.contains(&(minute / DAY)) && (from..to).contains(&(minute % DAY));
    let late = (minute + 6 * DAY) % (7 * DAY);
    within(minute) || weekdays.contains(&(late / DAY)) && (from..to).contains(&(late % DAY + DAY))
}

const WEEKDAYS: [i64; 5] = [0, 1, 2, 3, 4];

/// Ten days of every year on which New York is closed, whatever weekday they fall on.
fn american_holiday(bar: DateTime) -> bool {
    let days = [(1, 2), (1, 16), (2, 20), (4, 7), (5, 29), (6, 19), (7, 4), (9, 4), (11, 23), (12, 25)];
    days.contains(&(bar.month(), bar.day()))
}

/// Seventeen days of every year on which Tokyo is closed, five of them in one week.
fn japanese_holiday(bar: DateTime) -> bool {
    let days = [
        (1, 2),
        (1, 3),
        (1, 9),
        (2, 23),
        (3, 21),
        (5, 1),
        (5, 2),
        (5, 3),
        (5, 4),
        (5, 5),
        (7, 17),
        (8, 11),
        (9, 18),
        (10, 9),
        (11, 3),
        (11, 23),
        (12, 29),
    ];
    days.contains(&(bar.month(), bar.day()))
}

/// Daylight saving time in New York, about.
fn summer(bar: DateTime) -> i64 {
    i64::from((date(bar.year(), 3, 12)..date(bar.year(), 11, 5)).contains(&bar.date()))
}

/// A calendar of `whole` bars per year of which about `share` of the bars are left, the same ones in every run. `unit`
/// is what is left or missing together.
fn thinned(
    name: &'static str,
    all: &[DateTime],
    share: f64,
    unit: impl Fn(&DateTime) -> i64,
    whole: f64,
) -> Row {
    let kept = |bar: &&DateTime| {
        // SplitMix64.
        let mut state = (unit(bar) as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((state ^ (state >> 31)) >> 11) as f64) < share * (1_u64 << 53) as f64
    };
    let bars: Vec<DateTime> = all.iter().filter(kept).copied().collect();
    let right = whole * bars.len() as f64 / all.len() as f64;
    (name, bars, right, 0.03)
}

fn day_number(bar: &DateTime) -> i64 {
    bar.date().duration_since(date(2000, 1, 1)).as_hours() / 24
}

fn hour_number(bar: &DateTime) -> i64 {
    day_number(bar) * 24 + i64::from(bar.hour())
}

fn months(step: i32, count: i32) -> Vec<DateTime> {
    (0..count).map(|i| date(2015, 1, 1).at(0, 0, 0, 0) + (i * step).months()).collect()
}

/// A calendar: its name, its bars, the bars per year that are right, and the relative error allowed.
type Row = (&'static str, Vec<DateTime>, f64, f64);

fn daily() -> Vec<Row> {
    let weekdays = |days| bars(DAY, days, |m, _| session(m, &WEEKDAYS, 0, DAY));
    let crypto = |days| bars(DAY, days, |_, _| true);
    let with = |mut bars: Vec<DateTime>, more: &[Date]| {
        bars.extend(more.iter().map(|date| date.at(0, 0, 0, 0)));
        bars.sort();
        bars
    };
    let without = |bars: Vec<DateTime>, from: Date, to: Date| -> Vec<DateTime> {
        bars.into_iter().filter(|bar| !(from..to).contains(&bar.date())).collect()
    };
    vec![
        ("70 weekdays", weekdays(98), 252.0, 0.0),
        ("two weeks of weekdays", weekdays(12), 252.0, 0.0),
        (
            "New York, 3 years with holidays",
            bars(DAY, 1095, |m, t| session(m, &WEEKDAYS, 0, DAY) && !american_holiday(t)),
            252.0,
            0.0,
        ),
        (
            "New York, three weeks at Christmas",
            without(weekdays(371), date(2023, 1, 1), date(2023, 12, 15))
                .into_iter()
                .filter(|t| !american_holiday(*t))
                .collect(),
            252.0,
            0.0,
        ),
        (
            "Tokyo, 2 years with holidays",
            bars(DAY, 730, |m, t| session(m, &WEEKDAYS, 0, DAY) && !japanese_holiday(t)),
            252.0,
            0.0,
        ),
        ("one session on a Sunday", with(weekdays(98), &[date(2023, 2, 12)]), 252.0, 0.0),
        (
            "three sessions on Saturdays in a year",
            with(weekdays(364), &[date(2023, 1, 28), date(2023, 3, 18), date(2023, 11, 11)]),
            252.0,
            0.0,
        ),
        (
            "Tel Aviv, Sunday to Thursday",
            bars(DAY, 364, |m, _| session(m, &[6, 0, 1, 2, 3], 0, DAY)),
            252.0,
            0.0,
        ),
        (
            "six days, Monday to Saturday",
            bars(DAY, 364, |m, _| session(m, &[0, 1, 2, 3, 4, 5], 0, DAY)),
            302.0,
            0.0,
        ),
        ("three days a week", bars(DAY, 364, |m, _| session(m, &[0, 2, 4], 0, DAY)), 151.0, 0.0),
        (
            "foreign exchange with a candle on Sundays",
            bars(DAY, 730, |m, _| session(m, &[6, 0, 1, 2, 3, 4], 0, DAY)),
            312.0,
            0.0,
        ),
        ("crypto", crypto(400), 365.0, 0.0),
        ("crypto, ten days", crypto(10), 365.0, 0.0),
        (
            "Tel Aviv and New York after `drop`",
            bars(DAY, 364, |m, _| session(m, &[0, 1, 2, 3], 0, DAY)),
            202.0,
            0.0,
        ),
        ("a hole of three months", without(weekdays(500), date(2023, 6, 1), date(2023, 9, 1)), 252.0, 0.0),
        thinned("half of the weekdays missing", &weekdays(728), 0.5, day_number, 252.0),
        ("every second weekday", weekdays(364).into_iter().step_by(2).collect(), 126.0, 0.01),
        thinned("half of the days of crypto missing", &crypto(728), 0.5, day_number, 365.0),
    ]
}

fn intraday() -> Vec<Row> {
    let new_york: Open = |m, t| {
        let open = 14 * HOUR + 30 - summer(t) * HOUR;
        session(m, &WEEKDAYS, open, open + 390) && !american_holiday(t)
    };
    // 04:00 to 20:00 in New York ends on the next day in UTC, on Saturday for the session of Friday, from November to March.
    let extended: Open = |m, t| {
        let open = 9 * HOUR - summer(t) * HOUR;
        session(m, &WEEKDAYS, open, open + 16 * HOUR)
    };
    let tokyo: Open =
        |m, t| (session(m, &WEEKDAYS, 0, 150) || session(m, &WEEKDAYS, 210, 360)) && !japanese_holiday(t);
    let mumbai: Open = |m, _| session(m, &WEEKDAYS, 225, 600);
    let tel_aviv: Open = |m, _| session(m, &[6, 0, 1, 2, 3], 7 * HOUR, 15 * HOUR);
    // 10:00 to 16:00 in Sydney begins at 23:00 on the previous day in UTC, on Sunday for the session of Monday.
    let sydney: Open = |m, _| session(m, &[6, 0, 1, 2, 3], 23 * HOUR, 29 * HOUR);
    let exchange: Open = |m, _| (21 * HOUR + 6 * DAY..7 * DAY).contains(&m) || m < 4 * DAY + 21 * HOUR;
    let futures: Open = |m, _| {
        ((23 * HOUR + 6 * DAY..7 * DAY).contains(&m) || m < 4 * DAY + 22 * HOUR) && m % DAY / HOUR != 22
    };
    let always: Open = |_, _| true;
    vec![
        ("New York, 1 minute", bars(MINUTE, 60, new_york), 98_280.0, 0.0),
        ("New York, 30 minutes, a year", bars(30, 364, new_york), 3_276.0, 0.0),
        (
            "New York, 4 hours (2 a session)",
            bars(4 * HOUR, 364, |m, _| session(m, &WEEKDAYS, 13 * HOUR, 21 * HOUR)),
            504.0,
            0.0,
        ),
        ("New York, extended hours, 1 hour", bars(HOUR, 364, extended), 4_032.0, 0.0),
        ("New York, extended hours, 15 minutes in winter", bars(15, 60, extended), 16_128.0, 0.0),
        (
            "extended hours, 12 hours",
            bars(12 * HOUR, 364, |m, _| session(m, &WEEKDAYS, 12 * HOUR, 25 * HOUR)),
            504.0,
            // Ten bars of twelve hours look as if they filled five days.
            0.04,
        ),
        ("Tokyo with its lunch break, 5 minutes", bars(5, 364, tokyo), 15_120.0, 0.0),
        ("Mumbai, 15 minutes", bars(15, 364, mumbai), 6_300.0, 0.0),
        ("Tel Aviv, 1 hour", bars(HOUR, 364, tel_aviv), 2_016.0, 0.0),
        ("Sydney, 1 hour", bars(HOUR, 364, sydney), 1_512.0, 0.0),
        ("foreign exchange, 1 hour", bars(HOUR, 364, exchange), 6_240.0, 0.0),
        ("foreign exchange, 4 hours", bars(4 * HOUR, 364, exchange), 1_560.0, 0.0),
        ("foreign exchange, 1 hour, three weeks", bars(HOUR, 21, exchange), 6_240.0, 0.0),
        ("futures, 23 hours on five days, 1 hour", bars(HOUR, 364, futures), 5_980.0, 0.01),
        ("crypto, 1 minute", bars(MINUTE, 20, always), 525_600.0, 0.0),
        ("crypto, 1 hour", bars(HOUR, 100, always), 8_760.0, 0.0),
        ("crypto, 4 hours", bars(4 * HOUR, 100, always), 2_190.0, 0.0),
        thinned("half of the sessions missing, 1 hour", &bars(HOUR, 728, tel_aviv), 0.5, day_number, 2_016.0),
        thinned(
            "a tenth of the hours of crypto missing",
            &bars(HOUR, 364, always),
            0.9,
            hour_number,
            8_760.0,
        ),
    ]
}

fn wide() -> Vec<Row> {
    let weekly = bars(7 * DAY, 1400, |_, _| true);
    let fridays: Vec<_> = weekly
        .iter()
        .map(|t| *t + if american_holiday(*t + 4.days()) { 3.days() } else { 4.days() })
        .collect();
    let month_ends = months(1, 60).into_iter().map(|t| {
        let last = t + 1.month() - 1.day();
        let weekend = i64::from(last.weekday().to_monday_zero_offset()) - 4;
        last - weekend.max(0).days()
    });
    vec![
        ("weekly", weekly.clone(), 52.0, 0.0),
        ("weekly, on Fridays or Thursdays", fridays, 52.0, 0.0),
        thinned("half of the weeks missing", &weekly, 0.5, day_number, 52.0),
        ("monthly", months(1, 60), 12.0, 0.0),
        ("monthly, on the last weekday", month_ends.collect(), 12.0, 0.0),
        ("quarterly", months(3, 20), 4.0, 0.0),
        ("yearly", months(12, 10), 1.0, 0.0),
    ]
}

#[test]
fn calendars() {
    let mut wrong = 0;
    for (name, bars, right, tolerance) in daily().into_iter().chain(intraday()).chain(wide()) {
        let found = infer_periods_per_year(&bars);
        let fits = (found.value() - right).abs() <= tolerance * right;
        wrong += i32::from(!fits);
        let mark = if fits { "" } else { "  <- wrong" };
        println!("| {name} | {} | {right:.0} | {} | {} |{mark}", bars.len(), found.value(), found.reason());
    }
    assert_eq!(wrong, 0, "see the table above");
}

/// The result must not depend on the weekday on which a file begins, nor on a weekend more or less.
#[test]
fn every_start_and_length_gives_the_same() {
    let weekdays = bars(DAY, 364, |m, _| session(m, &WEEKDAYS, 0, DAY));
    let hours = bars(HOUR, 60, |m, _| session(m, &WEEKDAYS, 14 * HOUR, 21 * HOUR));
    let crypto = bars(HOUR, 40, |_, _| true);
    for (bars, shortest, right) in [(&weekdays, 10, 252.0), (&hours, 70, 1_764.0), (&crypto, 168, 8_760.0)] {
        for start in 0..bars.len().min(30) {
            for length in shortest..shortest + 60 {
                let part = bars.get(start..start + length).unwrap();
                assert_eq!(infer_periods_per_year(part).value(), right, "{length} bars from {}", part[0]);
            }
        }
    }
}

#[test]
fn less_than_a_week() {
    let hours = bars(HOUR, 60, |m, _| session(m, &WEEKDAYS, 14 * HOUR, 21 * HOUR));
    let crypto = bars(HOUR, 7, |_, _| true);
    let exchange = bars(HOUR, 8, |m, _| m / DAY < 5);
    let days = bars(DAY, 7, |_, _| true);
    for (bars, right) in [
        (&[][..], 252.0),
        (&days[..1], 252.0),
        (&days[..5], 252.0),
        (&days[3..], 365.0),
        // One session on a Sunday proves nothing.
        (&[days[3], days[4], days[6]], 252.0),
        (&hours[..28], 1_764.0),
        (&crypto[..5], 8_760.0),
        (&crypto[..30], 8_760.0),
        (&crypto[..100], 8_760.0),
        (&exchange[80..], 6_240.0),
    ] {
        let found = infer_periods_per_year(bars);
        assert_eq!(found.value(), right, "{found}");
    }
}

#[test]
fn reasons_are_sentences() {
    let said = |bars: &[DateTime]| infer_periods_per_year(bars).to_string();
    let weekdays = bars(DAY, 98, |m, _| session(m, &WEEKDAYS, 0, DAY));
    assert_eq!(
        said(&weekdays),
        "252 bars a year: daily bars, 5 sessions a week, 50.4 weeks a year (holidays of an exchange)"
    );
    let hours = bars(HOUR, 98, |m, _| m / DAY < 5);
    assert_eq!(
        said(&hours),
        "6240 bars a year: bars of 1 hour, 120 bars a week, 52 weeks a year (as in foreign exchange)"
    );
    let crypto = bars(15, 20, |_, _| true);
    assert_eq!(
        said(&crypto),
        "35040 bars a year: bars of 15 minutes, 672 bars a week, 365 days a year (open every day)"
    );
    assert_eq!(said(&months(1, 30)), "12 bars a year: one bar every 30.41 days");
    assert_eq!(
        said(&hours[..20]),
        "8760 bars a year: less than a week of bars, 24 a day, 365 days a year assumed"
    );
    assert_eq!(said(&[]), "252 bars a year: fewer than two bars, daily bars of an exchange assumed");
    assert_eq!(PeriodsPerYear::given(302.4).unwrap().to_string(), "302.4 bars a year: as given");
}

#[test]
fn a_given_number_is_positive() {
    for value in [0.0, -252.0, f64::NAN, f64::INFINITY] {
        let error = PeriodsPerYear::given(value).unwrap_err().to_string();
        assert!(error.contains(&format!("setting `periods_per_year`: {value} is out of range")), "{error}");
    }
}

#[test]
fn years_are_calendar_days() {
    let day = |year, month, day| date(year, month, day).at(0, 0, 0, 0);
    assert_eq!(years(&[day(2020, 1, 1), day(2023, 12, 31)]), 4.0);
    assert_eq!(years(&[day(2023, 12, 8), day(2024, 1, 5)]), 29.0 / 365.25);
    // However short the bars, no growth is raised to a higher power than that of a day.
    let minutes = bars(MINUTE, 1, |_, _| true);
    assert_eq!(years(&minutes[..5]), 1.0 / 365.25);
}
