//! Reads the rows of a CSV file.

use super::columns::Columns;
use super::header::{self, EXAMPLE};
use super::lines::{Lines, line_ends};
use super::number::Numbers;
use super::report::Finding;
use super::rows::{Cell, Row, Rows};
use super::series::{Place, Position};
use super::{LoadLimits, Loader, fault};
use crate::Result;
use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use std::io::Read;
use std::path::Path;

pub(super) fn read(path: &Path, input: Box<dyn Read + '_>, loader: &mut Loader) -> Result<()> {
    let limits = loader.options.limits.clone();
    let lines = Lines::new(path, input, &limits)?;
    let delimiter = lines.delimiter();
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).buffer_capacity(1 << 14).delimiter(delimiter);
    let mut records = Records { path, reader: builder.from_reader(lines), limits: &limits };

    let mut head: Vec<Record> = Vec::new();
    while head.len() < header::RECORDS {
        let mut record = Record::default();
        if !records.next(&mut record, None)? {
            break;
        }
        head.push(record);
    }
    if head.is_empty() {
        return Err(fault(path, None, None, format!("the file is empty; {EXAMPLE}")));
    }
    let texts: Vec<Vec<String>> = head.iter().map(Record::texts).collect();
    let layout = header::find(&texts);
    for (index, record) in head.iter().enumerate() {
        let known = layout.as_ref().ok().filter(|layout| index >= layout.header);
        check_utf8(path, record, known.map(|layout| &layout.columns))?;
    }
    let layout = layout.map_err(|(index, reason)| {
        let line = head.get(index).map(|record| record.line);
        fault(path, line, None, reason)
    })?;
    loader.open(path, &layout);

    let columns = &layout.columns;
    let mut rows = Rows::new(path, columns, Numbers::new(delimiter));
    let mut read = |record: &Record| {
        let place = Place { path, position: Position::Line(record.line), columns };
        record.check_length(&place)?;
        rows.read(&place, record, loader)
    };
    let first = head.get(layout.header..).unwrap_or_default();
    first.iter().try_for_each(&mut read)?;
    // Reused, so that a row allocates nothing.
    let mut record = Record::default();
    let mut empty = first.is_empty();
    while records.next(&mut record, Some(columns))? {
        read(&record)?;
        empty = false;
    }
    if empty {
        return Err(fault(path, None, None, format!("the file has a header but no bars; {EXAMPLE}")));
    }
    if rows.decimal_comma() {
        loader.note_file(Finding::DecimalComma);
    }
    Ok(())
}

/// One record and its position in the file.
#[derive(Default)]
struct Record {
    line: u64,
    /// Line on which the record ends: later than `line` if a quoted field spans lines.
    end: u64,
    fields: ByteRecord,
}

impl Record {
    fn texts(&self) -> Vec<String> {
        self.fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
    }

    fn check_length(&self, place: &Place) -> Result<()> {
        let (expected, got) = (place.columns.count(), self.fields.len());
        if expected == got {
            return Ok(());
        }
        let mut reason = format!("the row has {got} fields, but the header has {expected}");
        if self.line < self.end {
            let end = self.end;
            reason += &format!("; the row ends on line {end}: check for a quote that is not closed");
        }
        Err(place.row_fault(reason))
    }
}

impl Row for Record {
    /// UTF-8 and the number of fields were checked before.
    fn cell(&self, column: usize) -> Cell<'_> {
        let text = self.fields.get(column).and_then(|field| std::str::from_utf8(field).ok());
        Cell::Text(text.unwrap_or_default().trim())
    }
}

struct Records<'a> {
    path: &'a Path,
    reader: Reader<Lines<'a>>,
    limits: &'a LoadLimits,
}

impl Records<'_> {
    /// Reads the next record that is not blank; false at the end of the file. The text is checked once the columns are known.
    fn next(&mut self, record: &mut Record, columns: Option<&Columns>) -> Result<bool> {
        loop {
            let Self { path, reader, limits } = self;
            reader.get_mut().begin_record();
            let more =
                reader.read_byte_record(&mut record.fields).map_err(|error| match error.into_kind() {
                    ErrorKind::Io(error) => reader.get_ref().explain(path, error),
                    other => fault(path, None, None, format!("could not parse the file as CSV: {other:?}")),
                })?;
            if !more {
                return Ok(false);
            }
            record.end = reader.get_ref().line();
            let bytes = record.fields.as_slice();
            // A quoted field may span lines; errors report the line on which the record starts.
            record.line = record.end.saturating_sub(line_ends(bytes));
            let fields = record.fields.len();
            if fields > limits.fields {
                let found = format!("the line has {fields} fields");
                return Err(fault(path, Some(record.line), None, limits.fields_refusal(&found)));
            }
            if columns.is_some() && !bytes.is_ascii() {
                check_utf8(path, record, columns)?;
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

fn check_utf8(path: &Path, record: &Record, columns: Option<&Columns>) -> Result<()> {
    match record.fields.iter().position(|field| std::str::from_utf8(field).is_err()) {
        None => Ok(()),
        Some(at) => {
            let column = columns.map(|columns| columns.name(at)).filter(|name| !name.is_empty());
            let reason = "the text is not valid UTF-8; save the file in UTF-8";
            Err(fault(path, Some(record.line), column, reason))
        }
    }
}
