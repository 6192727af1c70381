//! Bars as programs send them, and how bars of single instruments become bars of all.
//!
//! * A bar is closed when all instruments have theirs. A bar of a later time closes the one before: instruments without a bar did not
//!   trade then.
//! * A bar that is not after the last closed one is late or out of order, and refused.
//! * A second bar of the same instrument and time is a duplicate, and refused.
//! * A JSON object with all bars of a time is complete by itself.

use anyhow::{Context, Result, anyhow, bail, ensure};
use jiff::civil::DateTime;
use phalanx::jiff;
use phalanx::market::{LiveBar, parse_timestamp};
use phalanx::text::shown;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Bars of all instruments at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedBar {
    pub time: DateTime,
    /// In the order of the model's instruments; `None` for those that did not trade.
    pub bars: Vec<Option<LiveBar>>,
    /// Equity and units per instrument, if the sender said what the account holds.
    pub holdings: Option<(f64, Vec<f64>)>,
}

/// One message: a bar of one instrument, or the bars of all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    time: Time,
    symbol: Option<String>,
    open: Option<f64>,
    high: Option<f64>,
    low: Option<f64>,
    close: Option<f64>,
    volume: Option<f64>,
    funding: Option<f64>,
    bars: Option<BTreeMap<String, Prices>>,
    holdings: Option<Holdings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Text(String),
    Number(i64),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: Option<f64>,
    funding: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holdings {
    equity: f64,
    #[serde(default)]
    units: BTreeMap<String, f64>,
}

/// The form of the lines, which the first one decides.
pub enum Format {
    Json,
    /// Names of the columns.
    Csv(Vec<String>),
}

impl Message {
    pub fn from_json(text: &[u8]) -> Result<Self> {
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(|error| {
            match error.inner().is_data() && error.path().iter().next().is_some() {
                true => anyhow!("`{}`: {}", error.path(), error.inner()),
                false => anyhow!("not a bar in JSON: {}", error.inner()),
            }
        })
    }
}

impl Format {
    /// Parses a line; `None` for an empty one and for the header of a table.
    pub fn parse(format: &mut Option<Self>, text: &[u8]) -> Result<Option<Message>> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        match format {
            None if text.starts_with(b"{") => *format = Some(Self::Json),
            None => {
                *format = Some(Self::Csv(columns(text)?));
                return Ok(None);
            }
            Some(_) => {}
        }
        match format {
            Some(Self::Csv(columns)) => of_row(columns, text).map(Some),
            _ => Message::from_json(text).map(Some),
        }
    }
}

fn fields(text: &[u8]) -> Result<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let row = reader.records().next().context("an empty line")?.context("not a line of a table")?;
    Ok(row.iter().map(|field| field.trim().to_string()).collect())
}

/// The columns of a header, by their usual names.
fn columns(text: &[u8]) -> Result<Vec<String>> {
    let columns: Vec<String> = fields(text)?.iter().map(|name| name.to_lowercase()).collect();
    for wanted in ["symbol", "open", "high", "low", "close"] {
        ensure!(
            columns.iter().any(|name| name == wanted),
            "the first line is neither JSON nor the header of a table with the columns timestamp, symbol, open, high, low, close \
             (and volume, funding): `{wanted}` is missing"
        );
    }
    let of_time = |name: &String| matches!(name.as_str(), "timestamp" | "time" | "date" | "datetime");
    ensure!(columns.iter().any(of_time), "the header has no column `timestamp`");
    Ok(columns)
}

fn of_row(columns: &[String], text: &[u8]) -> Result<Message> {
    let row = fields(text)?;
    ensure!(row.len() == columns.len(), "{} fields, expected {}", row.len(), columns.len());
    let field = |wanted: &str| {
        let at = columns.iter().position(|name| name == wanted)?;
        row.get(at).filter(|text| !text.is_empty())
    };
    let number = |wanted: &str| -> Result<Option<f64>> {
        let text = field(wanted);
        text.map(|text| text.parse().with_context(|| format!("{wanted} `{}` is not a number", shown(text))))
            .transpose()
    };
    let time = ["timestamp", "time", "date", "datetime"].iter().find_map(|name| field(name));
    Ok(Message {
        time: Time::Text(time.context("the timestamp is missing")?.clone()),
        symbol: Some(field("symbol").context("the symbol is missing")?.clone()),
        open: number("open")?,
        high: number("high")?,
        low: number("low")?,
        close: number("close")?,
        volume: number("volume")?,
        funding: number("funding")?,
        bars: None,
        holdings: None,
    })
}

/// A day from now: wherever the market is, no bar has a later time. A bar of a far future would make all others late.
fn tomorrow() -> DateTime {
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    now.saturating_add(jiff::SignedDuration::from_secs(seconds as i64 + 86_400))
}

/// Puts bars of single instruments together.
pub struct Assembly {
    symbols: Vec<String>,
    needs_volume: bool,
    /// Time, bars and holdings of the bar that is not closed yet.
    open: Option<ClosedBar>,
}

impl Assembly {
    pub fn new(symbols: &[String], needs_volume: bool) -> Self {
        Self { symbols: symbols.to_vec(), needs_volume, open: None }
    }

    /// Time of the bar that is not closed yet.
    pub fn pending(&self) -> Option<DateTime> {
        self.open.as_ref().map(|bar| bar.time)
    }

    /// Adds a message and returns the bars that it closes. `last` is the time of the last closed bar.
    pub fn add(&mut self, message: Message, last: Option<DateTime>) -> Result<Vec<ClosedBar>> {
        let time = match &message.time {
            Time::Text(text) => parse_timestamp(text),
            Time::Number(number) => parse_timestamp(&number.to_string()),
        }
        .context("`time`")?;
        let newest =
            self.pending().map_or(last, |pending| Some(last.map_or(pending, |last| last.max(pending))));
        if let Some(last) = last.filter(|last| time <= *last) {
            bail!("the bar of {time} is late: the last decision was on the bar of {last}");
        }
        if let Some(newest) = newest.filter(|newest| time < *newest) {
            bail!("the bar of {time} is out of order: bars of {newest} have come already");
        }
        ensure!(
            time <= tomorrow(),
            "the bar of {time} lies in the future: is it in another unit or time zone?"
        );
        let holdings = message.holdings.as_ref().map(|holdings| self.holdings(holdings)).transpose()?;
        let mut closed = Vec::new();
        if let Some(all) = &message.bars {
            ensure!(message.symbol.is_none(), "`symbol` and `bars` exclude each other");
            if let Some(before) = self.pending() {
                ensure!(before < time, "bars of {time} have come already, one by one");
            }
            let mut bars = vec![None; self.symbols.len()];
            for (symbol, prices) in all {
                let Prices { open, high, low, close, volume, funding } = *prices;
                bars[self.index(symbol)?] =
                    Some(self.bar(symbol, time, [open, high, low, close], volume, funding)?);
            }
            closed.extend(self.open.take());
            closed.push(ClosedBar { time, bars, holdings });
            return Ok(closed);
        }
        let symbol =
            message.symbol.as_deref().context("a bar needs `symbol`, or `bars` of all instruments")?;
        let index = self.index(symbol)?;
        let price = |name: &str, value: Option<f64>| {
            value.with_context(|| format!("{}: `{name}` is missing", shown(symbol)))
        };
        let prices = [
            price("open", message.open)?,
            price("high", message.high)?,
            price("low", message.low)?,
            price("close", message.close)?,
        ];
        let bar = self.bar(symbol, time, prices, message.volume, message.funding)?;
        if self.pending().is_some_and(|pending| pending < time) {
            closed.extend(self.open.take());
        }
        let count = self.symbols.len();
        let open =
            self.open.get_or_insert_with(|| ClosedBar { time, bars: vec![None; count], holdings: None });
        ensure!(
            open.bars[index].is_none(),
            "{}: a second bar of {time}; the first one counts",
            shown(symbol)
        );
        open.bars[index] = Some(bar);
        open.holdings = holdings.or(open.holdings.take());
        if open.bars.iter().all(Option::is_some) {
            closed.extend(self.open.take());
        }
        Ok(closed)
    }

    fn index(&self, symbol: &str) -> Result<usize> {
        self.symbols.iter().position(|own| own == symbol).with_context(|| {
            format!("the model does not trade `{}`, only {}", shown(symbol), self.symbols.join(", "))
        })
    }

    fn bar(
        &self,
        symbol: &str,
        time: DateTime,
        prices: [f64; 4],
        volume: Option<f64>,
        funding: Option<f64>,
    ) -> Result<LiveBar> {
        ensure!(
            volume.is_some() || !self.needs_volume,
            "{}: `volume` is missing, and the model was trained on candles with volume",
            shown(symbol)
        );
        let [open, high, low, close] = prices;
        let (volume, funding) = (volume.unwrap_or(0.0), funding.unwrap_or(0.0));
        let bar = LiveBar { open, high, low, close, volume, funding };
        bar.validate(symbol, time)?;
        Ok(bar)
    }

    fn holdings(&self, holdings: &Holdings) -> Result<(f64, Vec<f64>)> {
        let mut units = vec![0.0; self.symbols.len()];
        for (symbol, held) in &holdings.units {
            units[self.index(symbol).context("`holdings.units`")?] = *held;
        }
        Ok((holdings.equity, units))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembly() -> Assembly {
        Assembly::new(&["AAA".into(), "BBB".into()], false)
    }

    fn json(text: &str) -> Message {
        Message::from_json(text.as_bytes()).unwrap()
    }

    fn one(time: &str, symbol: &str) -> Message {
        json(&format!(
            r#"{{"time":"{time}","symbol":"{symbol}","open":1,"high":2,"low":1,"close":2,"volume":5}}"#
        ))
    }

    fn present(bar: &ClosedBar) -> Vec<bool> {
        bar.bars.iter().map(Option::is_some).collect()
    }

    #[test]
    fn a_bar_is_closed_by_its_last_instrument_or_by_a_later_bar() {
        let mut all = assembly();
        assert!(all.add(one("2024-01-02", "BBB"), None).unwrap().is_empty());
        let closed = all.add(one("2024-01-02", "AAA"), None).unwrap();
        assert_eq!(closed.iter().map(present).collect::<Vec<_>>(), [[true, true]]);
        let last = Some(closed[0].time);
        assert!(all.add(one("2024-01-03", "AAA"), last).unwrap().is_empty());
        let closed = all.add(one("2024-01-04", "AAA"), last).unwrap();
        assert_eq!(closed.iter().map(present).collect::<Vec<_>>(), [[true, false]]);
        let last = Some(closed[0].time);
        assert_eq!(all.pending().unwrap().to_string(), "2024-01-04T00:00:00");
        // An object with all bars closes the one before and itself.
        let whole = json(
            r#"{"time":1704499200,"bars":{"BBB":{"open":1,"high":2,"low":1,"close":2}},"holdings":{"equity":7,"units":{"AAA":3}}}"#,
        );
        let closed = all.add(whole, last).unwrap();
        assert_eq!(closed.iter().map(present).collect::<Vec<_>>(), [[true, false], [false, true]]);
        assert_eq!(closed[1].holdings, Some((7.0, vec![3.0, 0.0])));
        assert!(all.pending().is_none());
    }

    #[test]
    fn late_duplicated_and_unknown_bars_are_refused_and_nothing_is_lost() {
        let mut all = assembly();
        all.add(one("2024-01-03", "AAA"), None).unwrap();
        let last = Some(parse_timestamp("2024-01-02").unwrap());
        for (message, wanted) in [
            (one("2024-01-02", "BBB"), "is late"),
            (one("2024-01-03", "AAA"), "a second bar"),
            (one("2024-01-03", "XXX"), "does not trade `XXX`, only AAA, BBB"),
            (json(r#"{"time":"2024-01-03","symbol":"BBB","open":1,"high":2,"low":1}"#), "`close` is missing"),
            (json(r#"{"time":"soon","symbol":"BBB"}"#), "`time`"),
            (json(r#"{"time":"2024-01-03"}"#), "needs `symbol`"),
            (json(r#"{"time":"2024-01-03","bars":{}}"#), "one by one"),
        ] {
            let error = format!("{:#}", all.add(message, last).unwrap_err());
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        all.add(one("2024-01-05", "AAA"), last).unwrap();
        let error = format!("{:#}", all.add(one("2024-01-04", "BBB"), last).unwrap_err());
        assert!(error.contains("out of order"), "{error}");
        assert_eq!(all.add(one("2024-01-05", "BBB"), last).unwrap().len(), 1);
        let mut strict = Assembly::new(&["AAA".into()], true);
        let message = json(r#"{"time":"2024-01-03","symbol":"AAA","open":1,"high":2,"low":1,"close":1}"#);
        let error = strict.add(message, None).unwrap_err().to_string();
        assert!(error.contains("`volume` is missing"), "{error}");
    }

    #[test]
    fn lines_are_json_or_a_table() {
        let mut format = None;
        let mut parse = |text: &str| Format::parse(&mut format, text.as_bytes());
        assert!(parse("\r\n").unwrap().is_none());
        assert!(parse("Timestamp,Symbol,Open,High,Low,Close,Volume\n").unwrap().is_none());
        let message = parse("2024-01-02,AAA,1,2,1,2,\n").unwrap().unwrap();
        assert_eq!(
            (message.symbol.as_deref(), message.close, message.volume),
            (Some("AAA"), Some(2.0), None)
        );
        assert!(parse("2024-01-02,AAA,1,2,1\n").unwrap_err().to_string().contains("5 fields, expected 7"));
        let error = format!("{:#}", parse("2024-01-02,AAA,x,2,1,2,3\n").unwrap_err());
        assert!(error.contains("open `x` is not a number"), "{error}");
        assert!(Format::parse(&mut None, b"a,b,c\n").unwrap_err().to_string().contains("neither JSON"));
        let mut format = None;
        assert!(Format::parse(&mut format, b"{\"time\": 5").unwrap_err().to_string().contains("not a bar"));
        let error =
            Format::parse(&mut format, br#"{"time":"2024-01-02","symbol":"A","open":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("`open`"), "{error}");
    }
}
