//! Place of the header of a file: on its first line, after other lines, over several lines, or nowhere.

use super::columns::{Columns, Prices, is_close, is_timestamp, normalise};
use super::delimiter::is_preamble;
use super::number::is_missing;
use crate::market::timestamp;
use crate::text::shown;

/// Records that decide the layout.
pub(super) const RECORDS: usize = 8;

/// Rules for reading the rows of a file.
#[derive(Debug)]
pub(super) struct Layout {
    pub columns: Columns,
    /// Records before the first row.
    pub header: usize,
    pub source: Option<&'static str>,
    /// Whether timestamps are instants in UTC without a known time zone, as in Parquet files.
    pub in_utc: bool,
}

/// A format whose files have no header.
struct Bare {
    source: &'static str,
    starts: &'static [Start],
    columns: &'static [&'static str],
}

/// First fields of a row without header; all others are numbers.
#[derive(Clone, Copy)]
enum Start {
    Epoch,
    Date,
    Time,
}

const BARE: &[Bare] = &[
    Bare {
        source: "Binance klines without a header",
        starts: &[Start::Epoch],
        columns: &[
            "open time",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "close time",
            "quote amount",
            "trades",
            "taker base",
            "taker quote",
            "ignored",
        ],
    },
    Bare {
        source: "Kraken OHLCVT without a header",
        starts: &[Start::Epoch],
        columns: &["time", "open", "high", "low", "close", "volume", "trades"],
    },
    Bare {
        source: "MetaTrader 4 without a header",
        starts: &[Start::Date, Start::Time],
        columns: &["date", "time", "open", "high", "low", "close", "volume"],
    },
];

/// A source that is known by headers, all of which its files have; case is ignored.
const SOURCES: &[(&str, &[&str])] = &[
    ("Stooq's bulk format", &["<ticker>", "<per>"]),
    ("a MetaTrader export", &["<date>", "<open>"]),
    ("a CryptoDataDownload file", &["unix", "date", "symbol"]),
    ("a Dukascopy export", &["gmt time"]),
    ("a Dukascopy export", &["local time"]),
    ("Binance klines", &["open_time", "close_time"]),
    ("FinRL's format", &["tic"]),
];

/// Advice on files that are refused, by a header that they have.
const ADVICE: &[(&str, &str)] = &[
    (
        "change %",
        "this is an Investing.com export: rename `Price` to `close` and `Vol.` to `volume`, write dates as 2004-08-19 and volumes \
         without K, M and B",
    ),
    (
        "close/last",
        "this is a Nasdaq export: rename `Close/Last` to `close`, remove every `$`, and write dates as 2004-08-19",
    ),
    ("bid", "this looks like quotes: aggregate them to bars with open, high, low and close"),
    ("trade id", "this looks like single trades: aggregate them to bars with open, high, low and close"),
];

/// The same, by the start of the text.
const TEXT_ADVICE: &[(&str, &str)] = &[
    ("<", "this is a web page, not a table: download the file again"),
    ("{", "this is JSON: save the candles as CSV"),
    ("[", "this is JSON: save the candles as CSV"),
    ("exceeded the daily hits limit", "this is Stooq's answer after too many downloads: try again tomorrow"),
    ("no data", "the source had no candles for this request: check its symbol and dates"),
    (
        "('",
        "these are column names with several levels: write the table with `df.stack(level=1).reset_index()`",
    ),
];

pub(super) const EXAMPLE: &str =
    "write a header such as date,symbol,open,high,low,close,volume, then one line per bar";

/// Finds the layout from the first records of a file; the error comes with the index of the faulty record.
pub(super) fn find(records: &[Vec<String>]) -> Result<Layout, (usize, String)> {
    let skipped = records.iter().take_while(|record| is_preamble(&joined(record))).count();
    let rest = records.get(skipped..).unwrap_or_default();
    let Some(first) = rest.first() else {
        return Err((0, format!("the file has neither a header nor bars; {EXAMPLE}")));
    };
    if let Some(bare) = BARE.iter().find(|bare| bare.matches(first)) {
        let columns = Columns::find(bare.columns.iter().copied(), &[]).map_err(|reason| (skipped, reason))?;
        return Ok(Layout { columns, header: skipped, source: Some(bare.source), in_utc: false });
    }
    if let Some(tickers) = Tickers::find(rest) {
        let columns = tickers.columns().map_err(|reason| (skipped, reason))?;
        return Ok(Layout {
            columns,
            header: skipped + tickers.lines,
            source: Some(tickers.source),
            in_utc: false,
        });
    }
    let (columns, source) =
        named(first, rest.get(1..).unwrap_or_default()).map_err(|reason| (skipped, reason))?;
    Ok(Layout { columns, header: skipped + 1, source, in_utc: false })
}

/// Columns and source of a file whose columns have these names; `sample` is the first rows of values.
pub(super) fn named(
    names: &[String],
    sample: &[Vec<String>],
) -> Result<(Columns, Option<&'static str>), String> {
    let columns = Columns::find(names.iter().map(String::as_str), sample).map_err(|reason| {
        if names.iter().any(|field| field.trim().parse::<f64>().is_ok()) {
            without_header(names)
        } else {
            reason + &advice(names)
        }
    })?;
    let lower: Vec<String> = names.iter().map(|field| field.trim().to_lowercase()).collect();
    let source =
        SOURCES.iter().find(|(_, headers)| headers.iter().all(|it| lower.iter().any(|name| name == it)));
    Ok((columns, source.map(|(name, _)| *name)))
}

fn joined(record: &[String]) -> String {
    record.join(",")
}

fn advice(header: &[String]) -> String {
    let text = joined(header).trim().to_lowercase();
    let by_text = TEXT_ADVICE.iter().find(|(start, _)| text.starts_with(start));
    let by_name = || {
        let normals: Vec<String> = header.iter().map(|name| normalise(name)).collect();
        ADVICE.iter().find(|(name, _)| normals.iter().any(|it| it == name))
    };
    by_text.or_else(by_name).map_or(String::new(), |(_, advice)| format!(". {advice}"))
}

fn without_header(first: &[String]) -> String {
    let known: Vec<String> =
        BARE.iter().map(|bare| format!("{} ({} fields)", bare.source, bare.columns.len())).collect();
    let start: Vec<String> = first.iter().take(6).map(|field| shown(field)).collect();
    format!(
        "expected a header, found a row of {} fields (`{}{}`); {EXAMPLE}. Known without one: {}",
        first.len(),
        start.join(","),
        if start.len() < first.len() { ",..." } else { "" },
        known.join(", ")
    )
}

impl Bare {
    fn matches(&self, record: &[String]) -> bool {
        let number = |text: &String| text.trim().parse::<f64>().is_ok();
        record.len() == self.columns.len()
            && self.starts.iter().zip(record).all(|(start, text)| start.matches(text.trim()))
            && record.iter().skip(self.starts.len()).all(number)
    }
}

impl Start {
    fn matches(self, text: &str) -> bool {
        match self {
            Self::Epoch => text.parse::<f64>().is_ok() && timestamp::parse(text).is_ok(),
            Self::Date => text.parse::<f64>().is_err() && timestamp::parse(text).is_ok(),
            Self::Time => text.contains(':') && text.len() <= 8,
        }
    }
}

/// A header that names prices on one line and tickers on another, as pandas writes columns of two levels.
struct Tickers<'a> {
    prices: &'a [String],
    tickers: &'a [String],
    /// Header of the first column, the timestamps.
    index: &'a str,
    lines: usize,
    source: &'static str,
}

impl<'a> Tickers<'a> {
    fn find(records: &'a [Vec<String>]) -> Option<Self> {
        let blank = |fields: &[String]| fields.iter().all(|field| field.trim().is_empty());
        let has_close = |fields: &[String]| fields.iter().any(|field| is_close(field));
        let [first, second, ..] = records else { return None };
        if let Some(third) = records.get(2)
            && let Some((index, others)) = third.split_first()
            && is_timestamp(index)
            && blank(others)
        {
            let (prices, tickers) = if has_close(first) { (first, second) } else { (second, first) };
            let source = "columns of several levels, as yfinance writes them";
            return has_close(prices).then_some(Self { prices, tickers, index, lines: 3, source });
        }
        let (index, others) = second.split_first()?;
        let names = others.iter().all(|text| !is_missing(text.trim()) && text.trim().parse::<f64>().is_err());
        let start = first.first()?;
        let both = index.trim().is_empty() && !others.is_empty() && names && has_close(first);
        (both && (start.trim().is_empty() || is_timestamp(start))).then_some(Self {
            prices: first,
            tickers: second,
            index: start,
            lines: 2,
            source: "columns of two levels, as pandas writes them",
        })
    }

    fn columns(&self) -> Result<Columns, String> {
        let mut order: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut known = std::collections::HashMap::new();
        for (column, ticker) in self.tickers.iter().enumerate().skip(1) {
            let at = *known.entry(ticker.trim()).or_insert(order.len());
            match order.get_mut(at) {
                Some((_, columns)) => columns.push(column),
                None => order.push((ticker.trim(), vec![column])),
            }
        }
        let mut prices = Vec::with_capacity(order.len());
        for (ticker, columns) in &order {
            let own = columns.iter().filter_map(|column| self.prices.get(*column)).map(String::as_str);
            let found = Columns::find(std::iter::once("date").chain(own), &[])
                .map_err(|reason| format!("ticker `{}`: {reason}", shown(ticker)))?;
            let original = |column: Option<usize>| columns.get(column?.checked_sub(1)?).copied();
            prices.extend(found.prices.into_iter().map(|it| Prices {
                symbol: Some((*ticker).to_string()),
                numbers: it.numbers.map(original),
                adjusted: original(it.adjusted),
                funding: original(it.funding),
            }));
        }
        let names = std::iter::once(self.index).chain(self.prices.iter().skip(1).map(String::as_str));
        Ok(Columns::of_tickers(names, prices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Result<Layout, (usize, String)> {
        let records: Vec<Vec<String>> =
            text.lines().map(|line| line.split(',').map(str::to_string).collect()).collect();
        find(&records)
    }

    fn symbols(layout: &Layout) -> Vec<&str> {
        layout.columns.prices.iter().filter_map(|prices| prices.symbol.as_deref()).collect()
    }

    #[test]
    fn headers_of_several_lines() {
        for (text, lines, expected) in [
            (
                "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n2024-01-02,1,1,1,1,1",
                3,
                vec!["A"],
            ),
            (
                "Ticker,A,A,A,A,B,B,B,B\nPrice,Open,High,Low,Close,Open,High,Low,Close\nDate,,,,,,,,",
                3,
                vec!["A", "B"],
            ),
            (",Close,Close,High,High,Low,Low,Open,Open\n,B,A,B,A,B,A,B,A\nDate,,,,,,,,", 3, vec!["B", "A"]),
            ("Date,Close,High,Low,Open\n,A,A,A,A\n2024-01-02,1,1,1,1", 2, vec!["A"]),
        ] {
            let found = layout(text).expect(text);
            assert_eq!((found.header, symbols(&found)), (lines, expected), "{text}");
            assert_eq!((found.columns.timestamp, found.columns.time), (0, None));
        }
        let found = layout(",Close,Close,High,High,Low,Low,Open,Open\n,B,A,B,A,B,A,B,A\nDate,,,,,,,,")
            .expect("known");
        assert_eq!(found.columns.prices[1].numbers, [Some(8), Some(4), Some(6), Some(2), None]);
        let (line, reason) = layout("Price,Close,High,Low,Open,Close\nTicker,A,A,A,A,B\nDate,,,,,")
            .expect_err("B lacks prices");
        assert!(line == 0 && reason.starts_with("ticker `B`: missing columns: open"), "{reason}");
    }

    #[test]
    fn rows_without_a_header() {
        for (text, source) in [
            ("1704153600000,1,1,1,1,5,1704239999999,5,3,2,2,0", Some("Binance klines without a header")),
            (
                "1735689600000000,1,1,1,1,5,1735775999999999,5,3,2,2,0",
                Some("Binance klines without a header"),
            ),
            ("1704153600,1,1,1,1,5,3", Some("Kraken OHLCVT without a header")),
            ("2024.01.02,00:00,1,1,1,1,5", Some("MetaTrader 4 without a header")),
        ] {
            assert_eq!(layout(text).map(|found| (found.header, found.source)), Ok((0, source)), "{text}");
        }
        let (line, reason) =
            layout("https://a.b\n1704153600,1,1,1,1,5").expect_err("Coinbase has another order");
        assert_eq!(line, 1);
        assert!(
            reason.starts_with("expected a header, found a row of 6 fields (`1704153600,1,1,1,1,5`); "),
            "{reason}"
        );
    }

    #[test]
    fn known_sources_come_with_advice() {
        for (text, advice) in [
            ("<!DOCTYPE html>", "a web page"),
            ("{\"chart\": 1}", "JSON"),
            ("Exceeded the daily hits limit", "try again tomorrow"),
            ("Date,Price,Open,High,Low,Vol.,Change %", "Investing.com"),
            ("Timestamp,Bid,Ask", "aggregate them to bars"),
        ] {
            let (_, reason) = layout(text).expect_err(text);
            assert!(reason.contains(advice), "{reason}");
        }
    }
}
