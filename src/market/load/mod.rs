//! Reads candle files.
//!
//! Every question about a file has a module with a table of known answers, to which a line can be added: [`delimiter`], [`header`]
//! (where it is and which source wrote it), [`columns`] (their spellings), [`symbol`], [`number`], and the forms of
//! [`timestamp`](super::timestamp)s. [`source`] opens files, [`csv`] and [`parquet`] read [`rows`], [`series`] orders and [`join`] joins
//! them, [`adjust`] corrects prices, and [`report`] says what was found. [`limits`] bounds what a file may claim.

mod adjust;
mod columns;
mod csv;
mod delimiter;
mod header;
mod join;
mod limits;
mod lines;
mod number;
mod parquet;
mod report;
mod rows;
mod series;
mod source;
mod symbol;

pub use adjust::Adjust;
pub use limits::LoadLimits;
pub use report::{Finding, LoadNote, LoadReport, NotJoinedReason};

use super::align::{GapPolicy, Series, align};
use super::candles::Candles;
use super::offsets::{days_in_utc, restore_dates};
use super::rules::{Bar, Field, check};
use super::symbols::check_symbol;
use super::timestamp::show;
use crate::text::{self, shown};
use crate::{Error, Result};
use columns::Prices;
use header::Layout;
use rows::Beside;
use series::{FileSeries, Place};
use source::Source;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Options of reading candle files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Policy for bars that some instruments lack.
    pub gaps: GapPolicy,
    /// Use of a column of adjusted closes.
    pub adjust: Adjust,
    /// Limits on what files may make the reader allocate.
    pub limits: LoadLimits,
}

/// Candles, and what was found while they were loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The candles.
    pub candles: Candles,
    /// Findings: recognised, corrected and suspected.
    pub report: LoadReport,
}

impl Candles {
    /// Reads candle files with the default [`LoadOptions`] and this gap policy; see [`Candles::load_with`], which also returns what was
    /// found. Warnings are logged.
    ///
    /// # Errors
    /// Those of [`Candles::load_with`].
    pub fn load(paths: &[impl AsRef<Path>], gaps: GapPolicy) -> Result<Self> {
        let loaded = Self::load_with(paths, &LoadOptions { gaps, ..LoadOptions::default() })?;
        loaded.report.findings().iter().for_each(|line| tracing::info!("{line}"));
        loaded.report.warnings().iter().for_each(|line| tracing::warn!("{line}"));
        Ok(loaded.candles)
    }

    /// Reads CSV files, plain or compressed with gzip, and Parquet files (with the cargo feature `parquet`), and aligns their
    /// instruments by timestamp.
    ///
    /// A path is a file or a directory; from a directory, all regular `.csv`, `.csv.gz`, `.parquet` and `.pq` files are read, and links to
    /// such files. A pipe or a device is read if it is named itself. The exports of
    /// Yahoo Finance and yfinance (also with three header lines and several tickers), Stooq, MetaTrader, TradingView, Dukascopy,
    /// CryptoDataDownload, Binance and Kraken (also without a header) and FinRL are read as they are. In general:
    /// * the first line names the columns, in any order. Case and surrounding spaces are ignored, `_` and `-` count as
    ///   spaces, `<date>` as `date`. Needed are a timestamp (`date`, `time`, `timestamp`, `datetime`, `open time`, ... or `date`
    ///   and `time` together), `open`, `high`, `low` and `close`; for all spellings see the error message for a file without
    ///   them. For the forms of timestamps see [`parse_timestamp`](super::parse_timestamp);
    /// * the symbol is in a column `symbol`, `ticker`, `tic`, `instrument`, `asset`, `coin` or `pair`, `name` if none of these
    ///   exists; else it is the file name. Files whose names differ by a date or a number at the end only, and whose bars do
    ///   not overlap, are joined to one instrument, and so are the bars of one symbol in several files. Names that differ by a number
    ///   need bars of one length, and overlapping bars the same adjustment;
    /// * funding rates of perpetual contracts ([`Candles::funding`]) are in a column `funding`, `funding rate` or `fundingrate`; an
    ///   empty field is 0, and so are the rates of an instrument without the column, if others have it;
    /// * prices are between 1e-15 and 1e15, those of one instrument within a factor of 1e12, volume is at most 1e20, and price times volume
    ///   at most 1e33, so that every feature is finite in f32;
    /// * a file may not claim more memory than [`LoadOptions::limits`] allow;
    /// * volume is in all files or in none. Of several volumes the base volume is taken: `Volume BTC` rather than `Volume USD`;
    /// * an adjusted close is treated as [`LoadOptions::adjust`] says;
    /// * fields are separated by commas, semicolons, tabs or `|`. Numbers have a decimal point, beside semicolons also a decimal
    ///   comma. Text is UTF-8, with or without a byte order mark;
    /// * the bars of an instrument are in order of time, the oldest or the newest first. Rows of different instruments may be
    ///   interleaved. Rows whose prices are all missing (empty, `null`, `NaN`) are dropped;
    /// * times written with an offset are converted to UTC. Daily bars (and longer ones) keep date and time as written,
    ///   because the session of 8 January in Tokyo, `2024-01-08 00:00+09:00`, is 8 January everywhere. An instrument's bars
    ///   are daily if all of them have an offset, no two have one date, and all are at least 20 hours apart; they stay in
    ///   UTC if all are at midnight there. If all instruments have daily bars but stamp them at different times of day, the
    ///   bars are aligned by date.
    ///
    /// # Errors
    /// [`Error::Candles`] with file, line and column if a file is not valid or a bar violates an invariant of
    /// [`Candles`]; [`Error::Io`] if a file cannot be read; [`Error::Data`] if the instruments cannot be aligned
    /// under `gaps`, or if no path is given.
    pub fn load_with(paths: &[impl AsRef<Path>], options: &LoadOptions) -> Result<Loaded> {
        let mut loader = Loader { options: options.clone(), ..Loader::default() };
        for path in paths {
            let listed = source::list(path.as_ref())?;
            for file in &listed.left_out {
                loader.note(file, Finding::NotRegular { read: false });
            }
            for file in &listed.files {
                let (source, regular) = Source::open(file)?;
                if !regular {
                    loader.note(file, Finding::NotRegular { read: true });
                }
                loader.read(file, source)?;
            }
        }
        loader.finish()
    }

    /// Reads the contents of candle files from memory, each with the name that a file would have: [`Candles::load_with`] without a file
    /// system, for tests of the reader.
    ///
    /// # Errors
    /// Those of [`Candles::load_with`].
    #[doc(hidden)]
    pub fn load_bytes(files: &[(&str, &[u8])], options: &LoadOptions) -> Result<Loaded> {
        let mut loader = Loader { options: options.clone(), ..Loader::default() };
        for (name, bytes) in files {
            let name = Path::new(name);
            loader.read(name, Source::memory(name, bytes)?)?;
        }
        loader.finish()
    }
}

fn fault(path: &Path, line: Option<u64>, column: Option<&str>, reason: impl Into<String>) -> Error {
    Error::Candles {
        path: path.to_path_buf(),
        line,
        column: column.map(str::to_string),
        reason: text::reason(reason.into()),
    }
}

/// A file that was read.
struct File {
    path: PathBuf,
    has_volume: bool,
    /// Header of the adjusted close.
    adjusted: Option<String>,
    /// Whether timestamps are instants in UTC without a known time zone.
    in_utc: bool,
}

/// Instruments and files read so far.
#[derive(Default)]
struct Loader {
    options: LoadOptions,
    files: Vec<File>,
    series: Vec<FileSeries>,
    /// Series of the current file.
    by_symbol: HashMap<String, usize>,
    /// Series of the last row.
    recent: usize,
    /// Rows without prices, by symbol.
    dropped: BTreeMap<String, u64>,
    /// All symbols.
    symbols: HashSet<String>,
    /// Bars read so far.
    bars: u64,
    report: LoadReport,
}

impl Loader {
    fn read(&mut self, path: &Path, source: Source) -> Result<()> {
        self.by_symbol.clear();
        let first = self.series.len();
        self.recent = first;
        match source {
            Source::Parquet(file) => parquet::read(path, file, self)?,
            Source::Text(input) => csv::read(path, input, self)?,
        }
        let own = self.series.get_mut(first..).unwrap_or_default();
        if own.is_empty() {
            let reason = "no row has prices; download the file again, or remove it";
            return Err(fault(path, None, None, reason));
        }
        let mut reversed = false;
        for series in own {
            reversed |= series.sort();
            series.bars.shrink_to_fit();
            series.factors.shrink_to_fit();
            series.funding.shrink_to_fit();
        }
        if reversed {
            self.note_file(Finding::NewestFirst);
        }
        Ok(())
    }

    /// Begins a file.
    fn open(&mut self, path: &Path, layout: &Layout) {
        let columns = &layout.columns;
        let adjusted = columns.prices.iter().find_map(|prices| prices.adjusted);
        let adjusted = adjusted.map(|column| columns.name(column).to_string());
        let has_volume = columns.has_volume();
        let path = path.to_path_buf();
        self.files.push(File { path, has_volume, adjusted: adjusted.clone(), in_utc: layout.in_utc });
        if let Some(source) = layout.source {
            self.note_file(Finding::Source(source));
        }
        if let Some((used, others)) = columns.volume.clone() {
            self.note_file(Finding::Volume { used, others });
        }
        let tickers = columns.without_volume();
        if !tickers.is_empty() {
            self.note_file(Finding::VolumeLeftOut { tickers });
        }
        if let Some(column) = columns.prices.iter().find_map(|prices| prices.funding) {
            self.note_file(Finding::Funding { column: columns.name(column).to_string() });
        }
        if let Some(column) = adjusted.filter(|_| !self.adjusts()) {
            self.note_file(Finding::NotAdjusted { column });
        }
    }

    fn note_file(&mut self, finding: Finding) {
        if let Some(path) = self.files.last().map(|file| file.path.clone()) {
            self.note(&path, finding);
        }
    }

    fn note(&mut self, path: &Path, finding: Finding) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.report.note(name, finding);
    }

    fn adjusts(&self) -> bool {
        self.options.adjust == Adjust::Auto
    }

    /// Counts a row without prices.
    fn drop_row(&mut self, place: &Place, symbol: &str) -> Result<()> {
        match self.dropped.get_mut(symbol) {
            Some(rows) => *rows += 1,
            None => {
                self.meet(place, symbol)?;
                self.dropped.insert(symbol.to_string(), 1);
            }
        }
        Ok(())
    }

    /// Checks a symbol that may be new.
    fn meet(&mut self, place: &Place, symbol: &str) -> Result<()> {
        if self.symbols.contains(symbol) {
            return Ok(());
        }
        let of_file = place.columns.symbol.is_none()
            && place.columns.prices.first().is_none_or(|prices| prices.symbol.is_none());
        let remedy = if of_file { "rename the file" } else { "remove it" };
        check_symbol(symbol, remedy).map_err(|reason| match place.columns.symbol {
            Some(column) => place.fault(place.columns.name(column), reason),
            None => place.row_fault(reason),
        })?;
        let most = self.options.limits.symbols;
        if self.symbols.len() >= most {
            let reason = format!(
                "the files have more than {most} instruments: check that the symbols are right, load fewer, or raise data.limits.symbols"
            );
            return Err(place.row_fault(reason));
        }
        self.symbols.insert(symbol.to_string());
        Ok(())
    }

    /// Adds a bar of the current file.
    fn push(
        &mut self,
        place: &Place,
        prices: &Prices,
        symbol: &str,
        mut bar: Bar,
        beside: Beside,
    ) -> Result<()> {
        let clamped = check(symbol, &mut bar)
            .map_err(|(field, reason)| place.fault(&prices.name(field, place.columns), reason))?;
        let factor = match (beside.adjusted, prices.adjusted) {
            (Some(adjusted), Some(column)) => {
                let [.., close, _] = bar.values;
                let factor = adjusted / close;
                if !(factor > 0.0 && factor.is_finite()) {
                    let reason = format!(
                        "{} {}: the adjusted close is {adjusted}; it has to be finite and above 0. Correct it, or read the \
                         prices as they are (adjust = none)",
                        shown(symbol),
                        show(bar.timestamp)
                    );
                    return Err(place.fault(place.columns.name(column), reason));
                }
                Some(factor)
            }
            _ => None,
        };
        let file = self.files.len().saturating_sub(1);
        if self.series.get(self.recent).is_none_or(|series| series.symbol != symbol) {
            self.recent = match self.by_symbol.get(symbol) {
                Some(index) => *index,
                None => {
                    self.meet(place, symbol)?;
                    let mut series = FileSeries::new(symbol, file, place);
                    series.in_utc = self.files.last().is_some_and(|file| file.in_utc);
                    series.named_by_file = place.columns.symbol.is_none() && prices.symbol.is_none();
                    self.series.push(series);
                    self.by_symbol.insert(symbol.to_string(), self.series.len() - 1);
                    self.series.len() - 1
                }
            };
        }
        self.bars += 1;
        if self.bars > self.options.limits.bars {
            return Err(place.row_fault(self.options.limits.bars_refusal()));
        }
        let Some(series) = self.series.get_mut(self.recent) else { return Ok(()) };
        series.clamped += clamped;
        series.range = series.range.with(&bar).map_err(|(field, reason)| {
            let reason = format!("{} {}: {reason}", shown(symbol), show(bar.timestamp));
            place.fault(&prices.name(field, place.columns), reason)
        })?;
        series.push(place, bar, factor, beside.funding)
    }

    /// Whether the files have a volume column; an error if only some of them do.
    fn has_volume(&self) -> Result<bool> {
        let with = self.files.iter().find(|file| file.has_volume);
        let without = self.files.iter().find(|file| !file.has_volume);
        match (with, without) {
            (Some(with), Some(without)) => {
                let with = text::path(&with.path);
                let reason = format!(
                    "missing, but {with} has it; add the column here (0 if unknown) or remove it from all files"
                );
                Err(fault(&without.path, None, Some(Field::Volume.name()), reason))
            }
            (with, _) => Ok(with.is_some()),
        }
    }

    fn finish(mut self) -> Result<Loaded> {
        let has_volume = self.has_volume()?;
        if self.series.is_empty() {
            let reason = "no candle files given; pass CSV or Parquet files or a directory of them";
            return Err(Error::Data(reason.into()));
        }
        let mut joined = join::join(std::mem::take(&mut self.series), &self.files, &mut self.report)?;
        joined.iter_mut().for_each(|series| restore_dates(&mut series.bars));
        self.note_rows(&joined);
        for series in &mut joined {
            if let Some(finding) = adjust::adjust(series, &self.files)? {
                self.report.note(&series.symbol, finding);
            }
            for finding in adjust::unadjusted_splits(&series.bars) {
                self.report.note(&series.symbol, finding);
            }
        }
        let report = self.report;
        let own = |it: FileSeries| Series { symbol: it.symbol, bars: it.bars, funding: it.funding };
        let series = joined.into_iter().map(own).collect();
        let candles =
            align(series, self.options.gaps, has_volume, &self.options.limits).map_err(|error| {
                let apart = |note: &LoadNote| matches!(note.finding, Finding::NotJoined { .. });
                match (error, report.notes.iter().find(|note| apart(note))) {
                    (Error::Data(reason), Some(LoadNote { subject, finding })) => {
                        Error::Data(text::reason(format!("{reason}. {}: {finding}", shown(subject))))
                    }
                    (error, _) => error,
                }
            })?;
        Ok(Loaded { candles, report })
    }

    /// Notes dropped rows, clamped prices, missing funding rates, and daily bars whose dates are in doubt.
    fn note_rows(&mut self, joined: &[FileSeries]) {
        let symbols: HashMap<&str, u64> =
            joined.iter().map(|series| (series.symbol.as_str(), series.clamped)).collect();
        for (symbol, rows) in std::mem::take(&mut self.dropped) {
            self.report.note(&symbol, Finding::Dropped { rows });
            let by_file = self.files.iter().any(|file| symbol::of_file(&file.path) == Some(&symbol));
            if !symbols.contains_key(symbol.as_str()) && !by_file {
                self.report.note(&symbol, Finding::NoBars);
            }
        }
        let funded = joined.iter().any(|series| !series.funding.is_empty());
        for series in joined {
            if series.clamped > 0 {
                self.report.note(&series.symbol, Finding::Clamped { prices: series.clamped });
            }
            if funded && series.funding.is_empty() {
                self.report.note(&series.symbol, Finding::NoFunding);
            }
            if let Some(time) = days_in_utc(&series.bars).filter(|_| series.in_utc) {
                self.report.note(&series.symbol, Finding::DaysInUtc { time });
            }
        }
    }
}
