//! Reads candles from CSV files.

use super::align::{GapPolicy, Series, align};
use super::candles::Candles;
use super::columns::Columns;
use super::lines::Lines;
use super::rules::{Bar, check};
use super::timestamp::{parse, show};
use crate::{Error, Result};
use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};
use jiff::civil::DateTime;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

impl Candles {
    /// Reads CSV files, plain or compressed with gzip, and aligns their instruments by timestamp.
    ///
    /// A path is a file or a directory; from a directory, all `.csv` and `.csv.gz` files are read. A file without a
    /// symbol column holds one instrument, whose symbol is the file name without `.csv` and `.gz`. All rows
    /// of an instrument are in one file, in order of time; rows of different instruments may be interleaved.
    ///
    /// The first line names the columns, in any order. Case and surrounding spaces are ignored; `_` and `-` count as
    /// spaces:
    /// * `date`, `time`, `timestamp`, `datetime`, `date time`, `open time` or `gmt time`; or `date` and
    ///   `time` together, which are joined. For the forms see [`parse_timestamp`](super::parse_timestamp);
    /// * `symbol`, `ticker`, `instrument`, `asset` or `pair`; `name` if none of these exists;
    /// * `open`, `o`; `high`, `h`, `max`; `low`, `l`, `min`; `close`, `c` (an adjusted close is ignored);
    /// * `volume`, `vol` or `v`: in all files or in none.
    ///
    /// The separator is the comma, semicolon or tab that occurs most often on the first line. Numbers
    /// have a decimal point. Text is UTF-8, with or without a byte order mark.
    ///
    /// # Errors
    /// [`Error::Candles`] with file, line and column if a file is not valid CSV or a bar violates an invariant of
    /// [`Candles`]; [`Error::Io`] if a file cannot be read; [`Error::Data`] if the instruments cannot be aligned
    /// under `gaps`, or if no path is given.
    pub fn load(paths: &[impl AsRef<Path>], gaps: GapPolicy) -> Result<Self> {
        let mut loader = Loader::default();
        for path in paths {
            for file in files(path.as_ref())? {
                loader.read(file)?;
            }
        }
        let has_volume = loader.has_volume()?;
        if loader.instruments.is_empty() {
            return Err(Error::Data("no candle files given; pass CSV files or a directory of them".into()));
        }
        align(loader.instruments.into_iter().map(|it| it.series).collect(), gaps, has_volume)
    }
}

/// The file itself, or the candle files of a directory, sorted.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        let name = file.to_string_lossy().to_lowercase();
        if (name.ends_with(".csv") || name.ends_with(".csv.gz")) && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let reason = "the directory contains no .csv or .csv.gz file";
        return Err(fault(path, None, None, reason));
    }
    files.sort();
    Ok(files)
}

/// The file name without `.csv` and `.gz`: `eurusd_hourly` for `data/eurusd_hourly.csv.gz`.
fn symbol_of(path: &Path) -> Option<&str> {
    let mut name = path.file_name()?.to_str()?;
    for ending in [".gz", ".csv"] {
        if let Some((stem, end)) = name.split_at_checked(name.len().saturating_sub(ending.len()))
            && end.eq_ignore_ascii_case(ending)
        {
            name = stem;
        }
    }
    let name = name.trim();
    (!name.is_empty()).then_some(name)
}

fn fault(path: &Path, line: Option<u64>, column: Option<&str>, reason: impl Into<String>) -> Error {
    Error::Candles {
        path: path.to_path_buf(),
        line,
        column: column.map(str::to_string),
        reason: reason.into(),
    }
}

/// An instrument whose file is being read.
struct Instrument {
    series: Series,
    /// Index of its file.
    file: usize,
    /// Line of its last bar.
    line: u64,
}

/// Instruments and files read so far.
#[derive(Default)]
struct Loader {
    /// Files, and whether each has a volume column.
    files: Vec<(PathBuf, bool)>,
    instruments: Vec<Instrument>,
    by_symbol: HashMap<String, usize>,
}

impl Loader {
    /// Whether the files have a volume column; an error if only some of them do.
    fn has_volume(&self) -> Result<bool> {
        let with = self.files.iter().find(|(_, has_volume)| *has_volume);
        let without = self.files.iter().find(|(_, has_volume)| !*has_volume);
        match (with, without) {
            (Some((with, _)), Some((without, _))) => {
                let with = with.display();
                let reason = format!(
                    "missing, but {with} has it; add the column here (0 if unknown) or remove it from all files"
                );
                Err(fault(without, None, Some("volume"), reason))
            }
            (with, _) => Ok(with.is_some()),
        }
    }

    fn read(&mut self, path: PathBuf) -> Result<()> {
        let lines = Lines::open(&path)?;
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).buffer_capacity(1 << 14).delimiter(lines.delimiter());
        let mut reader = builder.from_reader(lines);
        // Reused, so that a row allocates nothing.
        let mut record = ByteRecord::new();
        let mut joined = String::new();
        let mut columns: Option<Columns> = None;
        let mut rows = 0_u64;
        loop {
            let more = reader.read_byte_record(&mut record).map_err(|error| match error.into_kind() {
                ErrorKind::Io(error) => reader.get_ref().explain(&path, error),
                other => fault(&path, None, None, format!("could not parse the file as CSV: {other:?}")),
            })?;
            if !more {
                break;
            }
            let end = reader.get_ref().line();
            let broken = record.iter().flatten().filter(|byte| **byte == b'\n');
            // A quoted field may span lines; errors report the line on which the record starts.
            let line = if record.as_slice().contains(&b'\n') {
                end.saturating_sub(broken.count() as u64)
            } else {
                end
            };
            if !record.as_slice().is_ascii() {
                check_utf8(&path, line, columns.as_ref(), &record)?;
            }
            let Some(columns) = &columns else {
                if record.as_slice().trim_ascii().is_empty() {
                    continue;
                }
                let headers = record.iter().map(|header| std::str::from_utf8(header).unwrap_or_default());
                let found =
                    Columns::find(headers).map_err(|reason| fault(&path, Some(line), None, reason))?;
                self.files.push((path.clone(), found.numbers.into_iter().all(|number| number.is_some())));
                columns = Some(found);
                continue;
            };
            rows += 1;
            self.read_row(&Row { path: &path, line, end, columns, record: &record }, &mut joined)?;
        }
        const EXAMPLE: &str =
            "write a header such as date,symbol,open,high,low,close,volume, then one line per bar";
        match columns {
            None => Err(fault(&path, None, None, format!("the file is empty; {EXAMPLE}"))),
            Some(_) if rows == 0 => {
                Err(fault(&path, None, None, format!("the file has a header but no bars; {EXAMPLE}")))
            }
            Some(_) => Ok(()),
        }
    }

    fn read_row(&mut self, row: &Row, joined: &mut String) -> Result<()> {
        row.check_length()?;
        let symbol = row.symbol()?;
        let timestamp = row.timestamp(symbol, joined)?;
        let mut bar = Bar { timestamp, values: [0.0; 5] };
        for (slot, column) in bar.values.iter_mut().zip(row.columns.numbers) {
            if let Some(column) = column {
                *slot = row.number(column, symbol, timestamp)?;
            }
        }
        check(symbol, &bar).map_err(|(field, reason)| row.fault(row.columns.field_name(field), reason))?;
        self.push(row, symbol, bar)
    }

    fn push(&mut self, row: &Row, symbol: &str, bar: Bar) -> Result<()> {
        let file = self.files.len().saturating_sub(1);
        let known = self.by_symbol.get(symbol).and_then(|index| self.instruments.get_mut(*index));
        let Some(instrument) = known else {
            self.by_symbol.insert(symbol.to_string(), self.instruments.len());
            let series = Series { symbol: symbol.to_string(), bars: vec![bar] };
            self.instruments.push(Instrument { series, file, line: row.line });
            return Ok(());
        };
        if instrument.file != file {
            let other = self.files.get(instrument.file).map(|(path, _)| path.display().to_string());
            let other = other.unwrap_or_default();
            let column = row.columns.symbol.map(|column| row.columns.name(column));
            let reason =
                format!("{symbol} also appears in {other}; put all bars of an instrument into one file");
            return Err(fault(row.path, Some(row.line), column, reason));
        }
        if let Some(last) = instrument.series.bars.last()
            && bar.timestamp <= last.timestamp
        {
            let earlier = instrument.series.bars.binary_search_by_key(&bar.timestamp, |bar| bar.timestamp);
            return Err(row.out_of_order(
                symbol,
                bar.timestamp,
                last.timestamp,
                instrument.line,
                earlier.is_ok(),
            ));
        }
        instrument.series.bars.push(bar);
        instrument.line = row.line;
        Ok(())
    }
}

fn check_utf8(path: &Path, line: u64, columns: Option<&Columns>, record: &ByteRecord) -> Result<()> {
    match record.iter().position(|field| std::str::from_utf8(field).is_err()) {
        None => Ok(()),
        Some(at) => {
            let column = columns.map(|columns| columns.name(at)).filter(|name| !name.is_empty());
            Err(fault(path, Some(line), column, "the text is not valid UTF-8; save the file in UTF-8"))
        }
    }
}

/// One row and its position in the file.
struct Row<'a> {
    path: &'a Path,
    line: u64,
    /// Line on which the row ends: later than `line` if a quoted field spans lines.
    end: u64,
    columns: &'a Columns,
    record: &'a ByteRecord,
}

impl<'a> Row<'a> {
    fn fault(&self, column: &str, reason: impl Into<String>) -> Error {
        fault(self.path, Some(self.line), Some(column), reason)
    }

    /// A trimmed field; UTF-8 and the number of fields were checked before.
    fn field(&self, column: usize) -> &'a str {
        self.record.get(column).and_then(|field| std::str::from_utf8(field).ok()).unwrap_or_default().trim()
    }

    fn check_length(&self) -> Result<()> {
        let (expected, got) = (self.columns.count(), self.record.len());
        if expected == got {
            return Ok(());
        }
        let mut reason = format!("the row has {got} fields, but the header has {expected}");
        if self.line < self.end {
            reason += &format!("; the row ends on line {}: check for a quote that is not closed", self.end);
        }
        Err(fault(self.path, Some(self.line), None, reason))
    }

    fn symbol(&self) -> Result<&'a str>
    where
        Self: 'a,
    {
        let Some(column) = self.columns.symbol else {
            return symbol_of(self.path).ok_or_else(|| {
                let reason = "the file has neither a symbol column nor a symbol in its name; rename it to \
                              SYMBOL.csv or add the column";
                fault(self.path, None, None, reason)
            });
        };
        match self.field(column) {
            "" => Err(self.fault(self.columns.name(column), "the symbol is empty; every row needs a symbol")),
            symbol => Ok(symbol),
        }
    }

    fn timestamp(&self, symbol: &str, joined: &mut String) -> Result<DateTime> {
        let mut text = self.field(self.columns.timestamp);
        if let Some(time) = self.columns.time {
            joined.clear();
            joined.extend([text, " ", self.field(time)]);
            text = joined;
        }
        parse(text)
            .map_err(|reason| self.fault(&self.columns.timestamp_name(), format!("{symbol}: {reason}")))
    }

    fn number(&self, column: usize, symbol: &str, timestamp: DateTime) -> Result<f64> {
        let text = self.field(column);
        text.parse().map_err(|_| {
            let place = format!("{symbol} {}", show(timestamp));
            let reason = match text {
                "" => format!("{place}: the field is empty; every bar needs a number in this column"),
                _ => format!("{place}: `{text}` is not a number; write it like 1234.5 or 1.2345e3"),
            };
            self.fault(self.columns.name(column), reason)
        })
    }

    fn out_of_order(&self, symbol: &str, at: DateTime, last: DateTime, line: u64, known: bool) -> Error {
        let (at, last_shown) = (show(at), show(last));
        let mut reason = if at == last_shown {
            format!("{symbol} has two bars at {at}, the first on line {line}; keep one of them")
        } else if known {
            format!(
                "{symbol} has two bars at {at}, the second after {last_shown} on line {line}; keep one of them"
            )
        } else {
            format!(
                "{symbol} {at} comes after {last_shown} on line {line}; sort the bars of an instrument by time"
            )
        };
        if self.columns.symbol.is_none() {
            reason += " (a file without a symbol column holds one instrument)";
        }
        self.fault(&self.columns.timestamp_name(), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_from_file_names() {
        for (path, symbol) in [
            ("data/eurusd_hourly.csv", Some("eurusd_hourly")),
            ("eurusd_hourly.csv.gz", Some("eurusd_hourly")),
            ("BRK.B.CSV.GZ", Some("BRK.B")),
            ("AAPL.gz", Some("AAPL")),
            ("AAPL", Some("AAPL")),
            ("\u{20ac}.csv", Some("\u{20ac}")),
            ("a\u{20ac}", Some("a\u{20ac}")),
            (".csv", None),
            ("..", None),
        ] {
            assert_eq!(symbol_of(Path::new(path)), symbol, "{path}");
        }
    }
}
