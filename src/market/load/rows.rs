//! Turns the rows of a file into bars, whatever the format of the file.

use super::columns::{Columns, Prices};
use super::number::{Numbers, is_missing};
use super::series::Place;
use super::{Loader, fault, symbol};
use crate::Result;
use crate::market::rules::Bar;
use crate::market::timestamp::{Stamp, parse, show};
use crate::text::shown;
use std::borrow::Cow;
use std::path::Path;

/// The content of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    /// Trimmed; empty if there is none.
    Text(&'a str),
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "text files have no typed fields"))]
    Int(i64),
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "text files have no typed fields"))]
    Number(f64),
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "text files have no typed fields"))]
    Time(Stamp),
}

impl<'a> Cell<'a> {
    fn is_missing(self) -> bool {
        match self {
            Self::Text(text) => is_missing(text),
            Self::Number(number) => number.is_nan(),
            Self::Int(_) | Self::Time(_) => false,
        }
    }

    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Int(number) => number.to_string().into(),
            Self::Number(number) => number.to_string().into(),
            Self::Time(stamp) => show(stamp.timestamp).into(),
        }
    }
}

/// A row with a field for every column.
pub(super) trait Row {
    fn cell(&self, column: usize) -> Cell<'_>;
}

/// Numbers of a bar beside prices and volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// The adjusted close.
    pub adjusted: Option<f64>,
    /// The funding rate; `None` if the file has none.
    pub funding: Option<f64>,
}

/// The rows of one file.
pub(super) struct Rows<'a> {
    path: &'a Path,
    columns: &'a Columns,
    numbers: Numbers,
    /// Date and time of a row, joined.
    joined: String,
}

impl<'a> Rows<'a> {
    pub fn new(path: &'a Path, columns: &'a Columns, numbers: Numbers) -> Self {
        Self { path, columns, numbers, joined: String::new() }
    }

    pub fn decimal_comma(&self) -> bool {
        self.numbers.decimal_comma()
    }

    /// Adds the bars of a row, one for each instrument that it holds.
    pub fn read(&mut self, place: &Place, row: &impl Row, loader: &mut Loader) -> Result<()> {
        let columns = self.columns;
        let shared = match columns.prices.first() {
            Some(Prices { symbol: Some(symbol), .. }) => symbol.as_str().into(),
            _ => self.symbol(place, row)?,
        };
        let Stamp { timestamp, offset } = self.timestamp(place, row, &shared)?;
        for prices in &columns.prices {
            let symbol = prices.symbol.as_deref().unwrap_or(&shared);
            let [quotes @ .., _] = prices.numbers;
            if quotes.into_iter().flatten().all(|column| row.cell(column).is_missing()) {
                loader.drop_row(place, symbol)?;
                continue;
            }
            let mut number = |column: Option<usize>| match column {
                None => Ok(0.0),
                Some(column) => self.numbers.of(row.cell(column)).map_err(|reason| {
                    place.fault(
                        columns.name(column),
                        format!("{} {}: {reason}", shown(symbol), show(timestamp)),
                    )
                }),
            };
            let mut bar = Bar { timestamp, offset, values: [0.0; 5] };
            for (slot, column) in bar.values.iter_mut().zip(prices.numbers) {
                *slot = number(column)?;
            }
            let adjusted =
                prices.adjusted.filter(|column| loader.adjusts() && !row.cell(*column).is_missing());
            let adjusted = adjusted.map(|column| number(Some(column))).transpose()?;
            let funding = prices.funding.map(|column| match row.cell(column) {
                cell if cell.is_missing() => Ok(0.0),
                _ => funding_rate(number(Some(column))?).map_err(|reason| {
                    place.fault(
                        columns.name(column),
                        format!("{} {}: {reason}", shown(symbol), show(timestamp)),
                    )
                }),
            });
            let beside = Beside { adjusted, funding: funding.transpose()? };
            loader.push(place, prices, symbol, bar, beside)?;
        }
        Ok(())
    }

    fn symbol<'r>(&self, place: &Place, row: &'r impl Row) -> Result<Cow<'r, str>>
    where
        'a: 'r,
    {
        let Some(column) = self.columns.symbol else {
            return symbol::of_file(self.path).map(Cow::Borrowed).ok_or_else(|| {
                let reason = "the file has neither a symbol column nor a symbol in its name; rename it to SYMBOL.csv or add the \
                              column";
                fault(self.path, None, None, reason)
            });
        };
        let symbol = row.cell(column).text();
        if symbol.is_empty() {
            let reason = "the symbol is empty; every row needs a symbol";
            return Err(place.fault(self.columns.name(column), reason));
        }
        Ok(symbol)
    }

    fn timestamp(&mut self, place: &Place, row: &impl Row, symbol: &str) -> Result<Stamp> {
        let mut text = match (row.cell(self.columns.timestamp), self.columns.time) {
            (Cell::Time(stamp), None) => return Ok(stamp),
            (cell, _) => cell.text(),
        };
        if let Some(time) = self.columns.time {
            self.joined.clear();
            self.joined.extend([&*text, " ", &*row.cell(time).text()]);
            text = self.joined.as_str().into();
        }
        parse(&text).map_err(|reason| {
            place.fault(&self.columns.timestamp_name(), format!("{}: {reason}", shown(symbol)))
        })
    }
}

/// Checks a funding rate of a bar.
fn funding_rate(rate: f64) -> Result<f64, String> {
    if rate.abs() < 1.0 {
        return Ok(rate);
    }
    Err(format!(
        "the funding rate is {rate}; it has to be a fraction strictly between -1 and 1, such as 0.0001 for 0.01 % (an empty \
         field is 0)"
    ))
}

impl Numbers {
    fn of(&mut self, cell: Cell) -> Result<f64, String> {
        match cell {
            Cell::Text(text) => self.parse(text),
            Cell::Int(number) => Ok(number as f64),
            Cell::Number(number) => Ok(number),
            Cell::Time(_) => Err(format!("`{}` is a timestamp, not a number", cell.text())),
        }
    }
}
