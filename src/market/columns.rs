//! Recognises the columns of a candle file by the usual spellings of their headers.

use super::rules::Field;

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
    /// Open, high, low, close and volume, in the order of [`Field::ALL`]; only volume may be absent.
    pub numbers: [Option<usize>; 5],
}

/// Accepted spellings, compared after [`normalise`].
const TIMESTAMP: &[&str] = &["date", "time", "timestamp", "datetime", "date time", "open time", "gmt time"];
const SYMBOL: &[&str] = &["symbol", "ticker", "instrument", "asset", "pair"];
/// Used only if no column of [`SYMBOL`] exists, because many files hold a company's name beside its ticker.
const SYMBOL_FALLBACK: &[&str] = &["name"];

fn spellings(field: Field) -> &'static [&'static str] {
    match field {
        Field::Open => &["open", "o"],
        Field::High => &["high", "h", "max"],
        Field::Low => &["low", "l", "min"],
        Field::Close => &["close", "c"],
        Field::Volume => &["volume", "vol", "v"],
    }
}

/// Trims, lowercases, and turns `_` and `-` into spaces: `Open_Time` becomes `open time`.
fn normalise(header: &str) -> String {
    header.trim().to_lowercase().replace(['_', '-'], " ")
}

impl Columns {
    /// Finds the columns; the error names those that are missing or ambiguous.
    pub fn find<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let names: Vec<String> = headers.map(|header| header.trim().to_string()).collect();
        let normals: Vec<String> = names.iter().map(|name| normalise(name)).collect();
        let matching = |accepted: &[&str]| -> Vec<usize> {
            let hits = normals.iter().enumerate().filter(|(_, name)| accepted.contains(&name.as_str()));
            hits.map(|(index, _)| index).collect()
        };
        let quoted = |hits: &[usize]| -> String {
            let texts = hits.iter().filter_map(|index| names.get(*index)).map(|name| format!("`{name}`"));
            texts.collect::<Vec<_>>().join(", ")
        };

        let one = |role: &str, accepted: &[&str]| match matching(accepted).as_slice() {
            [] => Ok(None),
            [hit] => Ok(Some(*hit)),
            hits => {
                Err(format!("{} columns match the {role}: {}; keep one of them", hits.len(), quoted(hits)))
            }
        };

        let (timestamp, time) = match (matching(&["date"]).as_slice(), matching(&["time"]).as_slice()) {
            ([date], [time]) if matching(TIMESTAMP).len() == 2 => (Some(*date), Some(*time)),
            _ => match matching(TIMESTAMP).as_slice() {
                [] => (None, None),
                [hit] => (Some(*hit), None),
                hits => {
                    return Err(format!(
                        "{} columns match the timestamp: {}; keep one of them, or `date` and `time`, which are joined",
                        hits.len(),
                        quoted(hits)
                    ));
                }
            },
        };
        let symbol = match one("symbol", SYMBOL)? {
            None => one("symbol", SYMBOL_FALLBACK)?,
            found => found,
        };
        let mut numbers = [None; 5];
        let mut missing = Vec::new();
        if timestamp.is_none() {
            missing.push(format!("timestamp (accepted: {})", TIMESTAMP.join(", ")));
        }
        for (slot, field) in numbers.iter_mut().zip(Field::ALL) {
            *slot = one(field.name(), spellings(field))?;
            if slot.is_none() && field != Field::Volume {
                missing.push(format!("{} (accepted: {})", field.name(), spellings(field).join(", ")));
            }
        }
        match timestamp {
            Some(timestamp) if missing.is_empty() => Ok(Self { names, timestamp, time, symbol, numbers }),
            _ => {
                let adjusted = match numbers {
                    [.., None, _] if normals.iter().any(|name| name == "adj close") => {
                        ". `adj close` is not used as the close because open, high and low are not adjusted; \
                         add the unadjusted close"
                    }
                    _ => "",
                };
                Err(format!(
                    "missing {}: {}; the header has {}{adjusted}",
                    if missing.len() == 1 { "column" } else { "columns" },
                    missing.join(", "),
                    quoted(&(0..names.len()).collect::<Vec<_>>()),
                ))
            }
        }
    }

    /// Number of columns.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Header of a column as written in the file.
    pub fn name(&self, column: usize) -> &str {
        self.names.get(column).map_or("", String::as_str)
    }

    /// Header of the column of a field.
    pub fn field_name(&self, field: Field) -> &str {
        let at = self.numbers.into_iter().zip(Field::ALL).find(|(_, it)| *it == field);
        at.and_then(|(column, _)| column).map_or(field.name(), |column| self.name(column))
    }

    /// Header or headers of the timestamp.
    pub fn timestamp_name(&self) -> String {
        match self.time {
            Some(time) => format!("{} + {}", self.name(self.timestamp), self.name(time)),
            None => self.name(self.timestamp).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &str) -> Result<Columns, String> {
        Columns::find(header.split(','))
    }

    #[test]
    fn spellings_case_and_spaces() {
        for header in [
            "date,symbol,open,high,low,close,volume",
            "DATE , Ticker,Open, HIGH,Low,Close,Volume",
            "Open_Time,asset,o,h,l,c,v",
            "gmt time,pair,Open,Max,Min,Close,Vol",
            "date-time,Name,Open,Max,Min,Close,Vol",
        ] {
            let columns = find(header).expect(header);
            assert_eq!((columns.timestamp, columns.time, columns.symbol), (0, None, Some(1)), "{header}");
            assert_eq!(columns.numbers, [Some(2), Some(3), Some(4), Some(5), Some(6)], "{header}");
        }
    }

    #[test]
    fn other_columns_are_ignored() {
        let columns = find("id,close,Adj Close,high,,low,open,timestamp,name,ticker").expect("complete");
        assert_eq!((columns.timestamp, columns.symbol), (7, Some(9)));
        assert_eq!(columns.numbers, [Some(6), Some(3), Some(5), Some(1), None]);
        assert_eq!(columns.field_name(Field::Open), "open");
        assert_eq!(columns.count(), 10);
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
