//! The columns of a Parquet file, a batch of rows at a time.

use super::super::header::{self, Layout};
use super::super::number::Numbers;
use super::super::rows::{Cell, Row, Rows};
use super::super::series::{Place, Position};
use super::super::{LoadLimits, Loader, fault};
use super::values::{Meaning, Value};
use super::zones;
use crate::text::shown;
use crate::{Error, Result};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::{ParquetError, Result as Read};
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use std::fs::File;
use std::path::Path;

/// Rows decoded at a time.
const BATCH: usize = 4096;

pub(in super::super) fn read(path: &Path, file: File, loader: &mut Loader) -> Result<()> {
    let broken = |error: ParquetError| {
        let reason = format!(
            "could not read the file as Parquet ({error}); write it again, uncompressed or with snappy, zstd or gzip"
        );
        fault(path, None, None, reason)
    };
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    check_size(reader.metadata(), bytes, &loader.options.limits)
        .map_err(|reason| fault(path, None, None, reason))?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let zones = zones::of_columns(metadata);
    let meaning = |column: &ColumnDescriptor| Meaning::of(column, zones.get(&column.path().string()));
    let sample = sample(&reader, meaning);
    let (columns, source) =
        header::named(&names, &sample).map_err(|reason| fault(path, None, None, reason))?;
    let in_utc = schema.columns().get(columns.timestamp).is_some_and(|column| meaning(column).is_utc());
    let layout = Layout { columns, header: 0, source, in_utc };
    loader.open(path, &layout);
    let columns = &layout.columns;

    // Fields have types here: no mark of decimals is to be found.
    let mut rows = Rows::new(path, columns, Numbers::new(b','));
    let used = columns.used();
    let mut row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(broken)?;
        let mut batch = Batch::new(&*group, &used, meaning).map_err(broken)?;
        let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        while left > 0 {
            let count = left.min(BATCH);
            batch.fill(count).map_err(broken)?;
            left -= count;
            for at in 0..count {
                row += 1;
                batch.at = at;
                let place = Place { path, position: Position::Row(row), columns };
                rows.read(&place, &batch, loader)?;
            }
        }
    }
    Ok(())
}

/// Compares what the metadata announces with the limits, before anything is decoded.
fn check_size(metadata: &ParquetMetaData, packed: u64, limits: &LoadLimits) -> Result<(), String> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    if columns > limits.fields {
        return Err(limits.fields_refusal(&format!("the file has {columns} columns")));
    }
    let size = |size: i64| u64::try_from(size).unwrap_or(u64::MAX);
    let sum = |all: u64, one: u64| all.saturating_add(one);
    let rows = metadata.row_groups().iter().map(|group| size(group.num_rows())).fold(0, sum);
    if rows > limits.bars {
        return Err(limits.bars_refusal());
    }
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    // The reader panics where a place is negative.
    let inside = |chunk: &ColumnChunkMetaData| {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let end = start.checked_add(chunk.compressed_size());
        start >= 0 && chunk.compressed_size() >= 0 && end.is_some_and(|end| size(end) <= packed)
    };
    if let Some(chunk) = chunks.clone().find(|chunk| !inside(chunk)) {
        let column = shown(&chunk.column_path().string());
        return Err(format!(
            "the data of column {column} are outside the file: it is damaged, use another copy of it"
        ));
    }
    let unpacked = chunks.map(|chunk| size(chunk.uncompressed_size())).fold(0, sum);
    // Runs of equal values take no space: a value is 8 bytes once it is decoded.
    let decoded = rows.saturating_mul(8).saturating_mul(columns as u64);
    if unpacked.max(decoded) > limits.unpacked(packed) {
        return Err(limits.unpacked_refusal(packed));
    }
    Ok(())
}

/// The first rows as text, as many as a CSV file has after its header, to choose between columns by their values. Columns that
/// cannot be decoded are empty: if they are read at all, their error comes later.
fn sample(
    reader: &SerializedFileReader<File>,
    meaning: impl Fn(&ColumnDescriptor) -> Meaning,
) -> Vec<Vec<String>> {
    const ROWS: usize = header::RECORDS - 1;
    let mut texts = Vec::new();
    for group in 0..reader.num_row_groups() {
        let Ok(group) = reader.get_row_group(group) else { break };
        let count = usize::try_from(group.metadata().num_rows()).unwrap_or(0).min(ROWS - texts.len());
        let schema = group.metadata().schema_descr();
        let mut columns = Vec::with_capacity(schema.num_columns());
        for (index, schema) in schema.columns().iter().enumerate() {
            // Repeated values are not one a row.
            let column = (schema.max_rep_level() == 0).then(|| Column::new(&*group, index, &meaning));
            let column = column.and_then(Read::ok);
            columns.push(column.and_then(|mut column| column.fill(count).ok().map(|()| column)));
        }
        let mut batch = Batch { columns, at: 0 };
        for at in 0..count {
            batch.at = at;
            texts.push(
                (0..schema.num_columns()).map(|column| batch.cell(column).text().into_owned()).collect(),
            );
        }
        if texts.len() == ROWS {
            break;
        }
    }
    texts
}

struct Column {
    reader: ColumnReader,
    meaning: Meaning,
    /// Definition level of values that are there.
    present: i16,
    values: Vec<Value>,
}

/// Consecutive rows of a row group, and one of them.
struct Batch {
    /// `None` for columns that are not used.
    columns: Vec<Option<Column>>,
    at: usize,
}

impl Batch {
    fn new(
        group: &dyn RowGroupReader,
        used: &[usize],
        meaning: impl Fn(&ColumnDescriptor) -> Meaning,
    ) -> Read<Self> {
        let mut columns = Vec::new();
        for index in 0..group.metadata().schema_descr().num_columns() {
            let column = used.contains(&index).then(|| Column::new(group, index, &meaning));
            columns.push(column.transpose()?);
        }
        Ok(Self { columns, at: 0 })
    }

    fn fill(&mut self, count: usize) -> Read<()> {
        self.columns.iter_mut().flatten().try_for_each(|column| column.fill(count))
    }
}

impl Row for Batch {
    fn cell(&self, column: usize) -> Cell<'_> {
        let column = self.columns.get(column).and_then(Option::as_ref);
        match column.and_then(|column| column.values.get(self.at)) {
            None | Some(Value::Missing) => Cell::Text(""),
            Some(Value::Int(value)) => Cell::Int(*value),
            Some(Value::Number(value)) => Cell::Number(*value),
            Some(Value::Time(value)) => Cell::Time(*value),
            // The replacement character shows in the message that this is no text.
            Some(Value::Text(value)) => Cell::Text(value.as_utf8().unwrap_or("\u{fffd}").trim()),
        }
    }
}

impl Column {
    fn new(
        group: &dyn RowGroupReader,
        index: usize,
        meaning: impl Fn(&ColumnDescriptor) -> Meaning,
    ) -> Read<Self> {
        let schema = group.metadata().schema_descr().column(index);
        let reader = group.get_column_reader(index)?;
        Ok(Self { reader, meaning: meaning(&schema), present: schema.max_def_level(), values: Vec::new() })
    }

    fn fill(&mut self, count: usize) -> Read<()> {
        let Self { reader, meaning, present, values } = self;
        let (meaning, present) = (&*meaning, *present);
        let unsigned = matches!(meaning, Meaning::Unsigned);
        values.clear();
        match reader {
            ColumnReader::BoolColumnReader(it) => {
                typed(it, count, present, values, |it| Value::Int(it.into()))
            }
            ColumnReader::Int32ColumnReader(it) => typed(it, count, present, values, |it| {
                meaning.whole(if unsigned { i64::from(it.cast_unsigned()) } else { it.into() })
            }),
            ColumnReader::Int64ColumnReader(it) => typed(it, count, present, values, |it| match it {
                ..0 if unsigned => Value::Number(it.cast_unsigned() as f64),
                _ => meaning.whole(it),
            }),
            ColumnReader::Int96ColumnReader(it) => typed(it, count, present, values, Meaning::int96),
            ColumnReader::FloatColumnReader(it) => {
                typed(it, count, present, values, |it| Value::Number(it.into()))
            }
            ColumnReader::DoubleColumnReader(it) => typed(it, count, present, values, Value::Number),
            ColumnReader::ByteArrayColumnReader(it) => {
                typed(it, count, present, values, |it| meaning.bytes(it))
            }
            ColumnReader::FixedLenByteArrayColumnReader(it) => {
                typed(it, count, present, values, |it| meaning.bytes(it.into()))
            }
        }
    }
}

fn typed<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    present: i16,
    out: &mut Vec<Value>,
    value: impl Fn(T::T) -> Value,
) -> Read<()> {
    let mut stored = Vec::with_capacity(count);
    let mut levels = Vec::new();
    reader.read_records(count, Some(&mut levels), None, &mut stored)?;
    let mut stored = stored.into_iter().map(value);
    if present == 0 {
        out.extend(stored);
    } else {
        let one = |level| if level == present { stored.next() } else { None };
        out.extend(levels.into_iter().map(one).map(|one| one.unwrap_or(Value::Missing)));
    }
    if out.len() == count {
        return Ok(());
    }
    Err(ParquetError::General(format!("a column has {} of {count} rows", out.len())))
}
