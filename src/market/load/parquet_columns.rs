//! The columns of a Parquet file, a batch of rows at a time.

use super::super::header;
use super::super::number::Numbers;
use super::super::rows::{Cell, Row, Rows};
use super::super::series::{Place, Position};
use super::super::{Loader, fault};
use crate::{Error, Result};
use ::parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType, Int96};
use ::parquet::errors::{ParquetError, Result as Read};
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use jiff::civil::DateTime;
use jiff::{Timestamp, tz::Offset};
use std::fs::File;
use std::path::Path;

/// Rows decoded at a time.
const BATCH: usize = 4096;

pub(in super::super) fn read(path: &Path, loader: &mut Loader) -> Result<()> {
    let broken = |error: ParquetError| {
        let reason = format!(
            "could not read the file as Parquet ({error}); write it again, uncompressed or with snappy, zstd or gzip"
        );
        fault(path, None, None, reason)
    };
    let file = File::open(path).map_err(Error::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let layout = header::find(&[names]).map_err(|(_, reason)| fault(path, None, None, reason))?;
    let columns = &layout.columns;
    loader.open(path, &layout);

    // Fields have types here: no mark of decimals is to be found.
    let mut rows = Rows::new(path, columns, Numbers::new(b','));
    let used = columns.used();
    let mut row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(broken)?;
        let mut batch = Batch::new(&*group, &used).map_err(broken)?;
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

/// A value of a column.
enum Value {
    Missing,
    Int(i64),
    Number(f64),
    Time(DateTime),
    Text(ByteArray),
}

/// Meaning of the stored values of a column.
#[derive(Clone, Copy)]
enum Meaning {
    Plain,
    /// Whole numbers without a sign.
    Unsigned,
    /// To be divided by this power of ten.
    Decimal(i32),
    /// Days since 1970.
    Days,
    Instant(TimeUnit),
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
    fn new(group: &dyn RowGroupReader, used: &[usize]) -> Read<Self> {
        let mut columns = Vec::new();
        for (index, schema) in group.metadata().schema_descr().columns().iter().enumerate() {
            columns.push(if used.contains(&index) {
                let reader = group.get_column_reader(index)?;
                let present = schema.max_def_level();
                Some(Column { reader, meaning: Meaning::of(schema), present, values: Vec::new() })
            } else {
                None
            });
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

impl Meaning {
    fn of(schema: &ColumnDescriptor) -> Self {
        match (schema.logical_type_ref(), schema.converted_type()) {
            (Some(LogicalType::Timestamp(it)), _) => Self::Instant(it.unit),
            (_, ConvertedType::TIMESTAMP_MILLIS) => Self::Instant(TimeUnit::MILLIS),
            (_, ConvertedType::TIMESTAMP_MICROS) => Self::Instant(TimeUnit::MICROS),
            (Some(LogicalType::Date), _) | (_, ConvertedType::DATE) => Self::Days,
            (Some(LogicalType::Decimal(it)), _) => Self::Decimal(it.scale),
            (_, ConvertedType::DECIMAL) => Self::Decimal(schema.type_scale()),
            (
                _,
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
            ) => Self::Unsigned,
            _ => Self::Plain,
        }
    }

    fn whole(self, value: i64) -> Value {
        let time = |instant: std::result::Result<Timestamp, _>| {
            instant.map_or(Value::Missing, |instant: Timestamp| Value::Time(Offset::UTC.to_datetime(instant)))
        };
        match self {
            Self::Plain | Self::Unsigned => Value::Int(value),
            // One division of two exact numbers: the nearest f64, as if it were parsed from text.
            Self::Decimal(scale) => Value::Number(value as f64 / 10_f64.powi(scale)),
            Self::Days => time(Timestamp::from_second(value.saturating_mul(86_400))),
            Self::Instant(TimeUnit::MILLIS) => time(Timestamp::from_millisecond(value)),
            Self::Instant(TimeUnit::MICROS) => time(Timestamp::from_microsecond(value)),
            Self::Instant(TimeUnit::NANOS) => time(Timestamp::from_nanosecond(value.into())),
        }
    }

    fn bytes(self, value: ByteArray) -> Value {
        match self {
            Self::Decimal(scale) => big_endian(value.data())
                .map_or(Value::Missing, |whole| Value::Number(whole as f64 / 10_f64.powi(scale))),
            _ => Value::Text(value),
        }
    }
}

/// A signed number of at most 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut all = [sign; 16];
    let start = all.len().checked_sub(bytes.len())?;
    all.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

impl Column {
    fn fill(&mut self, count: usize) -> Read<()> {
        let Self { reader, meaning, present, values } = self;
        let (meaning, present) = (*meaning, *present);
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
            ColumnReader::Int96ColumnReader(it) => typed(it, count, present, values, |it: Int96| {
                Meaning::Instant(TimeUnit::NANOS).whole(it.to_nanos())
            }),
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
