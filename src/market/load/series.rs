//! The bars of one instrument in one file, in the order of time.

use super::columns::Columns;
use super::fault;
use crate::market::rules::{Bar, PriceRange};
use crate::market::timestamp::show;
use crate::text::shown;
use crate::{Error, Result};
use jiff::civil::DateTime;
use std::cmp::Ordering;
use std::fmt;
use std::path::Path;

/// Place of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Position {
    Line(u64),
    /// 1-based row of a file that has no lines.
    #[cfg_attr(
        not(feature = "parquet"),
        expect(dead_code, reason = "only Parquet files have rows without lines")
    )]
    Row(u64),
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}"),
            Self::Row(row) => write!(out, "row {row}"),
        }
    }
}

/// A row of a file, for error messages.
pub(super) struct Place<'a> {
    pub path: &'a Path,
    pub position: Position,
    pub columns: &'a Columns,
}

impl Place<'_> {
    pub fn fault(&self, column: &str, reason: impl Into<String>) -> Error {
        self.fault_at(Some(column), reason.into())
    }

    pub fn row_fault(&self, reason: impl Into<String>) -> Error {
        self.fault_at(None, reason.into())
    }

    fn fault_at(&self, column: Option<&str>, reason: String) -> Error {
        self.position.fault(self.path, column, reason)
    }
}

impl Position {
    pub fn fault(self, path: &Path, column: Option<&str>, reason: String) -> Error {
        match self {
            Self::Line(line) => fault(path, Some(line), column, reason),
            Self::Row(row) => fault(path, None, column, format!("row {row}: {reason}")),
        }
    }
}

/// Adjusted close over close of a bar, and the row that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    pub ratio: f64,
    /// Index of the file.
    pub file: usize,
    pub position: Position,
}

#[derive(Debug)]
pub(super) struct FileSeries {
    pub symbol: String,
    /// Index of the file.
    pub file: usize,
    /// Whether the symbol is the name of the file.
    pub named_by_file: bool,
    pub bars: Vec<Bar>,
    /// One for every bar; empty if the file has no adjusted close.
    pub factors: Vec<Factor>,
    /// Funding rate of every bar; empty if the file has none.
    pub funding: Vec<f64>,
    /// Whether the timestamps are instants in UTC without a known time zone.
    pub in_utc: bool,
    /// Opens and closes that were moved into the bar's range.
    pub clamped: u64,
    pub range: PriceRange,
    /// Position of the last bar.
    last: Position,
    newest_first: bool,
}

impl FileSeries {
    pub fn new(symbol: &str, file: usize, place: &Place) -> Self {
        Self {
            symbol: symbol.to_string(),
            file,
            named_by_file: false,
            bars: Vec::new(),
            factors: Vec::new(),
            funding: Vec::new(),
            in_utc: false,
            clamped: 0,
            range: PriceRange::default(),
            last: place.position,
            newest_first: false,
        }
    }

    /// Appends a bar; the first two decide whether the newest or the oldest comes first.
    pub fn push(&mut self, place: &Place, bar: Bar, ratio: Option<f64>, funding: Option<f64>) -> Result<()> {
        if let Some(last) = self.bars.last() {
            let order = bar.timestamp.cmp(&last.timestamp);
            if self.bars.len() == 1 {
                self.newest_first = order == Ordering::Less;
            }
            let expected = if self.newest_first { Ordering::Less } else { Ordering::Greater };
            if order != expected {
                return Err(self.out_of_order(place, bar.timestamp, last.timestamp));
            }
        }
        if !self.bars.is_empty() && ratio.is_some() == self.factors.is_empty() {
            let reason = format!(
                "{} {}: some rows have an adjusted close and others have none; fill the column, or read the prices as they \
                 are (adjust = none)",
                shown(&self.symbol),
                show(bar.timestamp)
            );
            return Err(place.row_fault(reason));
        }
        self.bars.push(bar);
        self.funding.extend(funding);
        self.factors.extend(ratio.map(|ratio| Factor { ratio, file: self.file, position: place.position }));
        self.last = place.position;
        Ok(())
    }

    /// Puts the oldest bar first; whether it was the last.
    pub fn sort(&mut self) -> bool {
        if self.newest_first {
            self.bars.reverse();
            self.factors.reverse();
            self.funding.reverse();
        }
        std::mem::take(&mut self.newest_first)
    }

    fn out_of_order(&self, place: &Place, at: DateTime, last: DateTime) -> Error {
        let (symbol, position) = (shown(&self.symbol), self.last);
        let key = |bar: &Bar| if self.newest_first { at.cmp(&bar.timestamp) } else { bar.timestamp.cmp(&at) };
        let known = self.bars.binary_search_by(key).is_ok();
        let (shown, last_shown) = (show(at), show(last));
        let mut reason = if at == last {
            format!("{symbol} has two bars at {shown}, the first on {position}; keep one of them")
        } else if known {
            format!(
                "{symbol} has two bars at {shown}, the second after {last_shown} on {position}; keep one of them"
            )
        } else {
            format!(
                "{symbol} {shown} comes after {last_shown} on {position}; sort the bars of an instrument by time"
            )
        };
        if place.columns.symbol.is_none() && place.columns.prices.len() == 1 {
            reason += " (a file without a symbol column holds one instrument)";
        }
        place.fault(&place.columns.timestamp_name(), reason)
    }
}
