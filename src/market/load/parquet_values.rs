//! Values of Parquet columns, by the types that the schema gives them.

use crate::market::timestamp::Stamp;
use ::parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use ::parquet::data_type::{ByteArray, Int96};
use ::parquet::schema::types::ColumnDescriptor;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// A value of a column.
pub(super) enum Value {
    Missing,
    Int(i64),
    Number(f64),
    Time(Stamp),
    Text(ByteArray),
}

/// Clock of stored times.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    /// Local time, without a time zone.
    Local,
    /// Instants; nobody knows in which time zone they were meant.
    Utc,
    Zone(TimeZone),
}

/// Meaning of the stored values of a column.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Plain,
    /// Whole numbers without a sign.
    Unsigned,
    /// To be divided by this power of ten.
    Decimal(i32),
    /// Days since 1970.
    Days,
    Time(TimeUnit, Clock),
}

impl Meaning {
    /// `zone` is the time zone that the file's metadata give the column.
    pub fn of(schema: &ColumnDescriptor, zone: Option<&TimeZone>) -> Self {
        let instant = || zone.map_or(Clock::Utc, |zone| Clock::Zone(zone.clone()));
        match (schema.logical_type_ref(), schema.converted_type()) {
            (Some(LogicalType::Timestamp(it)), _) => {
                Self::Time(it.unit, if it.is_adjusted_to_u_t_c { instant() } else { Clock::Local })
            }
            (_, ConvertedType::TIMESTAMP_MILLIS) => Self::Time(TimeUnit::MILLIS, instant()),
            (_, ConvertedType::TIMESTAMP_MICROS) => Self::Time(TimeUnit::MICROS, instant()),
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

    /// Whether the values are instants without a known time zone.
    pub fn is_utc(&self) -> bool {
        matches!(self, Self::Time(_, Clock::Utc))
    }

    pub fn whole(&self, value: i64) -> Value {
        match self {
            Self::Plain | Self::Unsigned => Value::Int(value),
            Self::Decimal(scale) => decimal(value.into(), *scale),
            Self::Days => time(Timestamp::from_second(value.saturating_mul(86_400)), &Clock::Local),
            Self::Time(TimeUnit::MILLIS, clock) => time(Timestamp::from_millisecond(value), clock),
            Self::Time(TimeUnit::MICROS, clock) => time(Timestamp::from_microsecond(value), clock),
            Self::Time(TimeUnit::NANOS, clock) => time(Timestamp::from_nanosecond(value.into()), clock),
        }
    }

    /// INT96 holds times of day that old writers took from local time or from UTC; taken as written.
    pub fn int96(value: Int96) -> Value {
        time(Timestamp::from_nanosecond(value.to_nanos().into()), &Clock::Local)
    }

    pub fn bytes(&self, value: ByteArray) -> Value {
        match self {
            Self::Decimal(scale) => {
                big_endian(value.data()).map_or(Value::Missing, |whole| decimal(whole, *scale))
            }
            _ => Value::Text(value),
        }
    }
}

fn time(instant: Result<Timestamp, jiff::Error>, clock: &Clock) -> Value {
    let Ok(instant) = instant else { return Value::Missing };
    let offset = match clock {
        Clock::Local | Clock::Utc => None,
        Clock::Zone(zone) => i16::try_from(zone.to_offset(instant).seconds() / 60).ok(),
    };
    Value::Time(Stamp { timestamp: Offset::UTC.to_datetime(instant), offset })
}

/// The f64 nearest to `whole` / 10^`scale`: the one that the number has as text.
fn decimal(whole: i128, scale: i32) -> Value {
    // Up to here the mantissa and the power of ten are exact, and their quotient is rounded once.
    const EXACT: u128 = 1 << 53;
    const POWERS: std::ops::RangeInclusive<i32> = 0..=22;
    if whole.unsigned_abs() <= EXACT && POWERS.contains(&scale) {
        return Value::Number(whole as f64 / 10_f64.powi(scale));
    }
    format!("{whole}e{}", -scale).parse().map_or(Value::Missing, Value::Number)
}

/// A signed number of at most 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut all = [sign; 16];
    let start = all.len().checked_sub(bytes.len())?;
    all.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_the_numbers_of_their_texts() {
        let bits = |whole, scale| match decimal(whole, scale) {
            Value::Number(number) => number.to_bits(),
            _ => panic!("a number"),
        };
        for (whole, scale, text) in [
            (123_456, 2, "1234.56"),
            (-5, 1, "-0.5"),
            // Decimal(38, 18) of prices with few digits.
            (100_070_000_000_000_000_000, 18, "100.07"),
            (1_052_360_000_000_000_000, 18, "1.05236"),
            (9_007_199_254_740_993, 3, "9007199254740.993"),
            (12_345_678_901_234_567_890_123, 18, "12345.678901234567890123"),
            (7, 30, "7e-30"),
        ] {
            let expected: f64 = text.parse().expect(text);
            assert_eq!(bits(whole, scale), expected.to_bits(), "{text}");
        }
    }
}
