//! Recognises the columns of a candle file by the usual spellings of their headers.

use super::super::rules::Field;
use super::symbol;
use crate::text;

/// Positions of the columns of one file.
#[derive(Debug)]
pub(super) struct Columns {
    /// Headers as written in the file, trimmed.
    names: Vec<String>,
    /// Date, or date and time.
    pub timestamp: usize,
    /// Time of day, if it has a separate column.
    pub time: Option<usize>,
    pub symbol: Option<usize>,
    /// One element, or one for each instrument if rows hold several.
    pub prices: Vec<Prices>,
    /// The volume column and the other candidates, if there was something to choose.
    pub volume: Option<(String, Vec<String>)>,
}

/// Columns of the numbers of one instrument.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prices {
    /// The symbol, if the header states it.
    pub symbol: Option<String>,
    /// Open, high, low, close and volume, in the order of [`Field::ALL`]; only volume may be absent.
    pub numbers: [Option<usize>; 5],
    pub adjusted: Option<usize>,
    /// Funding rates of perpetual contracts.
    pub funding: Option<usize>,
}

/// Accepted spellings, compared after [`normalise`]: those of the first group that occurs are taken.
type Spellings = &'static [&'static [&'static str]];

const TIMESTAMP: Spellings = &[
    &["date", "time", "timestamp", "datetime", "date time", "open time", "gmt time", "local time"],
    &["unix", "unix time", "unix timestamp", "epoch"],
    // The index that pandas writes without a name.
    &["", "index", "index level 0"],
];

const ADJUSTED: &[&str] = &["adj close", "adjclose", "adj. close", "adjusted close", "close adj"];

const FUNDING: &[&str] = &["funding", "funding rate", "fundingrate"];

fn spellings(field: Field) -> Spellings {
    match field {
        Field::Open => &[&["open", "o"]],
        Field::High => &[&["high", "h", "max"]],
        Field::Low => &[&["low", "l", "min"]],
        Field::Close => &[&["close", "c"]],
        Field::Volume => &[
            &["volume", "vol", "v"],
            &["base volume", "volume base", "volumefrom", "volume from", "base asset volume"],
            &["tickvol", "tick volume", "volumeto", "volume to", "quote volume", "quote asset volume"],
        ],
    }
}

/// Units in which the second of two volumes is usually given, as in `Volume USD` beside `Volume BTC`.
const QUOTE_UNITS: &[&str] = &[
    "usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "try", "currency",
    "quote",
];
/// Words after `volume` that are no units.
const NO_UNITS: &[&str] = &["ma", "sma", "ema", "avg", "average", "change", "ratio", "profile"];

/// Trims, lowercases, removes `<>` around the name, and turns `_` and `-` into spaces: `<Open_Time>` becomes `open time`.
pub(super) fn normalise(header: &str) -> String {
    let header = header.trim().to_lowercase().replace(['_', '-'], " ");
    let header = header.trim();
    let bare = header.strip_prefix('<').and_then(|header| header.strip_suffix('>'));
    bare.unwrap_or(header).to_string()
}

/// Whether a header names the timestamp, other than by having no name.
pub(super) fn is_timestamp(header: &str) -> bool {
    let header = normalise(header);
    !header.is_empty() && TIMESTAMP.iter().any(|group| group.contains(&header.as_str()))
}

/// Whether a header names the close.
pub(super) fn is_close(header: &str) -> bool {
    spellings(Field::Close).iter().any(|group| group.contains(&normalise(header).as_str()))
}

/// The unit in `volume (btc)` or `volume btc`.
fn unit(normal: &str) -> Option<&str> {
    let unit = normal.strip_prefix("volume")?.trim_start_matches([' ', '(']).trim_end_matches(')');
    let code = (2..=8).contains(&unit.len()) && unit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (normal.starts_with("volume ") && code && !NO_UNITS.contains(&unit)).then_some(unit)
}

/// Headers of a file, searched by spelling.
struct Headers<'a> {
    names: &'a [String],
    normals: Vec<String>,
}

impl Headers<'_> {
    fn matching(&self, accepted: &[&str]) -> Vec<usize> {
        let hits = self.normals.iter().enumerate().filter(|(_, name)| accepted.contains(&name.as_str()));
        hits.map(|(index, _)| index).collect()
    }

    fn quoted(&self, hits: &[usize]) -> String {
        text::list(hits.iter().map(|index| self.names.get(*index).map_or("", String::as_str)), "`")
    }

    /// The only column of the first group that occurs.
    fn one(&self, role: &str, groups: &[&[&str]]) -> Result<Option<usize>, String> {
        for group in groups {
            match self.matching(group).as_slice() {
                [] => {}
                [hit] => return Ok(Some(*hit)),
                hits => {
                    let (count, names) = (hits.len(), self.quoted(hits));
                    return Err(format!("{count} columns match the {role}: {names}; keep one of them"));
                }
            }
        }
        Ok(None)
    }

    fn timestamp(&self) -> Result<(Option<usize>, Option<usize>), String> {
        for group in TIMESTAMP {
            let hits = self.matching(group);
            match (self.matching(&["date"]).as_slice(), self.matching(&["time"]).as_slice()) {
                ([date], [time]) if hits.len() == 2 => return Ok((Some(*date), Some(*time))),
                _ => {}
            }
            match hits.as_slice() {
                [] => {}
                [hit] => return Ok((Some(*hit), None)),
                hits => {
                    return Err(format!(
                        "{} columns match the timestamp: {}; keep one of them, or `date` and `time`, which are joined",
                        hits.len(),
                        self.quoted(hits)
                    ));
                }
            }
        }
        Ok((None, None))
    }

    /// The volume column and the other candidates: by spelling, else by unit; a column of zeros only if there is no other.
    fn volume(&self, sample: &[Vec<String>]) -> Result<(Option<usize>, Vec<usize>), String> {
        let groups = spellings(Field::Volume);
        let mut candidates = Vec::new();
        for (rank, group) in groups.iter().enumerate() {
            candidates.extend(self.one("volume", &[group])?.map(|column| (2 * rank, column)));
        }
        let units = self.normals.iter().enumerate().filter_map(|(column, name)| Some((column, unit(name)?)));
        // After the spellings of a volume in base units, before those of other volumes.
        let ranked =
            units.map(|(column, unit)| if QUOTE_UNITS.contains(&unit) { (5, column) } else { (3, column) });
        candidates.extend(ranked);
        candidates.sort_unstable();
        let number = |row: &Vec<String>, column: usize| {
            row.get(column).and_then(|text| text.trim().parse::<f64>().ok())
        };
        let zero = |column: usize| {
            let mut values = sample.iter().filter_map(|row| number(row, column)).peekable();
            values.peek().is_some() && values.all(|value| value == 0.0)
        };
        let best = candidates.iter().find(|(_, column)| !zero(*column)).or(candidates.first());
        let used = best.map(|(_, column)| *column);
        let others = candidates.iter().map(|(_, column)| *column).filter(|column| Some(*column) != used);
        Ok((used, others.collect()))
    }
}

impl Columns {
    /// Finds the columns; `sample` is the first rows of values. The error names the columns that are missing or ambiguous.
    pub fn find<'a>(headers: impl Iterator<Item = &'a str>, sample: &[Vec<String>]) -> Result<Self, String> {
        let names: Vec<String> = headers.map(|header| header.trim().to_string()).collect();
        let normals: Vec<String> = names.iter().map(|name| normalise(name)).collect();
        let headers = Headers { names: &names, normals };
        let (timestamp, time) = headers.timestamp()?;
        let symbol = headers.one("symbol", &[symbol::COLUMNS, symbol::FALLBACK])?;
        let mut missing = Vec::new();
        if timestamp.is_none() {
            let accepted = TIMESTAMP.concat();
            let accepted: Vec<&str> = accepted.into_iter().filter(|name| !name.is_empty()).collect();
            missing.push(format!("timestamp (accepted: {})", accepted.join(", ")));
        }
        let mut numbers = [None; 5];
        let mut volume = None;
        for (slot, field) in numbers.iter_mut().zip(Field::ALL) {
            if field == Field::Volume {
                let (used, others) = headers.volume(sample)?;
                *slot = used;
                let name = |column: usize| names.get(column).cloned().unwrap_or_default();
                let plain = |column: usize| {
                    spellings(field)
                        .first()
                        .is_some_and(|group| group.contains(&normalise(&name(column)).as_str()))
                };
                volume = used
                    .filter(|used| !others.is_empty() || !plain(*used))
                    .map(|used| (name(used), others.into_iter().map(name).collect()));
                continue;
            }
            *slot = headers.one(field.name(), spellings(field))?;
            if slot.is_none() {
                missing.push(format!(
                    "{} (accepted: {})",
                    field.name(),
                    spellings(field).concat().join(", ")
                ));
            }
        }
        let adjusted = headers.one("adjusted close", &[ADJUSTED])?;
        if let (Some(timestamp), []) = (timestamp, missing.as_slice()) {
            let funding = headers.one("funding rate", &[FUNDING])?;
            let prices = vec![Prices { symbol: None, numbers, adjusted, funding }];
            return Ok(Self { names, timestamp, time, symbol, prices, volume });
        }
        let hint = match (numbers, adjusted) {
            ([.., None, _], Some(_)) => {
                ". `adj close` is not used as the close because open, high and low are not adjusted; add the unadjusted close"
            }
            _ => "",
        };
        Err(format!(
            "missing {}: {}; the header has {}{hint}",
            if missing.len() == 1 { "column" } else { "columns" },
            missing.join(", "),
            headers.quoted(&(0..names.len()).collect::<Vec<_>>()),
        ))
    }

    /// Columns of several instruments beside each other, after a first column of timestamps.
    pub fn of_tickers<'a>(names: impl Iterator<Item = &'a str>, prices: Vec<Prices>) -> Self {
        let names = names.map(|header| header.trim().to_string()).collect();
        Self { names, timestamp: 0, time: None, symbol: None, prices, volume: None }
    }

    /// Indices of the columns that are read.
    #[cfg(feature = "parquet")]
    pub fn used(&self) -> Vec<usize> {
        let prices =
            self.prices.iter().flat_map(|it| it.numbers.into_iter().chain([it.adjusted, it.funding]));
        prices.chain([Some(self.timestamp), self.time, self.symbol]).flatten().collect()
    }

    /// Number of columns.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Header of a column as written in the file.
    pub fn name(&self, column: usize) -> &str {
        self.names.get(column).map_or("", String::as_str)
    }

    /// Whether every instrument of the file has a volume.
    pub fn has_volume(&self) -> bool {
        self.prices.iter().all(Prices::has_volume)
    }

    /// The tickers without a volume, if others have one.
    pub fn without_volume(&self) -> Vec<String> {
        if !self.prices.iter().any(Prices::has_volume) {
            return Vec::new();
        }
        let without = self.prices.iter().filter(|prices| !prices.has_volume());
        without.filter_map(|prices| prices.symbol.clone()).collect()
    }

    /// Header or headers of the timestamp.
    pub fn timestamp_name(&self) -> String {
        match self.time {
            Some(time) => format!("{} + {}", self.name(self.timestamp), self.name(time)),
            None => self.name(self.timestamp).to_string(),
        }
    }
}

impl Prices {
    fn has_volume(&self) -> bool {
        matches!(self.numbers, [.., Some(_)])
    }

    /// Header of the column of a field.
    pub fn name(&self, field: Field, columns: &Columns) -> String {
        let at = self.numbers.into_iter().zip(Field::ALL).find(|(_, it)| *it == field);
        at.and_then(|(column, _)| column).map_or(field.name(), |column| columns.name(column)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &str) -> Result<Columns, String> {
        Columns::find(header.split(','), &[])
    }

    #[test]
    fn spellings_case_and_spaces() {
        for header in [
            "date,symbol,open,high,low,close,volume",
            "DATE , Ticker,Open, HIGH,Low,Close,Volume",
            "Open_Time,asset,o,h,l,c,v",
            "gmt time,pair,Open,Max,Min,Close,Vol",
            "date-time,Name,Open,Max,Min,Close,Vol",
            "<DATE>,<TICKER>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
            ",tic,open,high,low,close,volume",
            "__index_level_0__,coin,open,high,low,close,volume",
        ] {
            let columns = find(header).expect(header);
            assert_eq!((columns.timestamp, columns.time, columns.symbol), (0, None, Some(1)), "{header}");
            let numbers = [Some(2), Some(3), Some(4), Some(5), Some(6)];
            assert_eq!(
                columns.prices,
                [Prices { symbol: None, numbers, adjusted: None, funding: None }],
                "{header}"
            );
            assert_eq!(columns.volume, None, "{header}");
        }
    }

    #[test]
    fn other_columns_are_ignored() {
        let columns =
            find("id,close,Adj Close,high,,low,open,timestamp,name,ticker,fundingRate").expect("complete");
        assert_eq!((columns.timestamp, columns.symbol), (7, Some(9)));
        let numbers = [Some(6), Some(3), Some(5), Some(1), None];
        assert_eq!(columns.prices, [Prices { symbol: None, numbers, adjusted: Some(2), funding: Some(10) }]);
        assert_eq!(columns.prices[0].name(Field::Open, &columns), "open");
        assert_eq!(columns.count(), 11);
    }

    #[test]
    fn the_base_volume_is_taken() {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let zeros = [text(&["2024.01.02", "1", "1", "1", "1", "55", "0"])];
        for (volumes, sample, used, others) in [
            ("Volume BTC,Volume USD", &[] as &[Vec<String>], "Volume BTC", vec!["Volume USD"]),
            ("Volume USDT,Volume ETH", &[], "Volume ETH", vec!["Volume USDT"]),
            ("Volume ETH,Volume BTC,tradecount", &[], "Volume ETH", vec!["Volume BTC"]),
            ("Volume_(BTC),Volume_(Currency)", &[], "Volume_(BTC)", vec!["Volume_(Currency)"]),
            ("volumefrom,volumeto", &[], "volumefrom", vec!["volumeto"]),
            ("quote_volume,volume", &[], "volume", vec!["quote_volume"]),
            ("Volume USD,x", &[], "Volume USD", vec![]),
            ("<TICKVOL>,<VOL>", &[], "<VOL>", vec!["<TICKVOL>"]),
            ("<TICKVOL>,<VOL>", &zeros, "<TICKVOL>", vec!["<VOL>"]),
        ] {
            let header = format!("date,open,high,low,close,{volumes}");
            let columns = Columns::find(header.split(','), sample).expect("complete");
            assert_eq!(columns.volume, Some((used.into(), text(&others))), "{volumes}");
            assert!(columns.has_volume());
        }
        for none in ["Volume MA", "volume change", "volumes", "tradecount"] {
            assert!(
                !find(&format!("date,open,high,low,close,{none}")).expect("complete").has_volume(),
                "{none}"
            );
        }
    }

    #[test]
    fn unix_is_used_if_there_is_no_date() {
        assert_eq!(find("unix,date,open,high,low,close").map(|columns| columns.timestamp), Ok(1));
        assert_eq!(find("unix,open,high,low,close").map(|columns| columns.timestamp), Ok(0));
        assert_eq!(find(",open,high,low,close").map(|columns| columns.timestamp), Ok(0));
        assert_eq!(find(",date,open,high,low,close").map(|columns| columns.timestamp), Ok(1));
    }

    #[test]
    fn date_and_time_are_joined() {
        let columns = find("Time,Date,open,high,low,close").expect("complete");
        assert_eq!((columns.timestamp, columns.time), (1, Some(0)));
        assert_eq!(columns.timestamp_name(), "Date + Time");
    }

    #[test]
    fn ambiguous_columns_are_refused() {
        for (header, text) in [
            (
                "date,open,high,low,close,Close",
                "2 columns match the close: `close`, `Close`; keep one of them",
            ),
            (
                "date,symbol,ticker,open,high,low,close",
                "2 columns match the symbol: `symbol`, `ticker`; keep one of them",
            ),
            (
                "date,open,high,low,close,funding,Funding_Rate",
                "2 columns match the funding rate: `funding`, `Funding_Rate`; keep one of them",
            ),
            (
                "date,time,timestamp,open,high,low,close",
                "3 columns match the timestamp: `date`, `time`, `timestamp`; keep one of them, or `date` and \
                 `time`, which are joined",
            ),
        ] {
            assert_eq!(find(header).map(|_| ()), Err(text.into()));
        }
    }

    #[test]
    fn an_adjusted_close_is_not_used_as_close() {
        assert_eq!(
            find("date,open,high,low,Adj Close").map(|_| ()),
            Err("missing column: close (accepted: close, c); the header has `date`, `open`, `high`, `low`, \
                 `Adj Close`. `adj close` is not used as the close because open, high and low are not \
                 adjusted; add the unadjusted close"
                .into())
        );
    }
}
