//! Time zones of the columns of a Parquet file, from the metadata that pandas writes: Parquet itself stores instants only.

use crate::market::timestamp::parse;
use ::parquet::file::metadata::FileMetaData;
use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;
use std::collections::HashMap;

/// The value of the key `pandas`.
#[derive(Deserialize)]
struct Pandas {
    columns: Vec<PandasColumn>,
}

#[derive(Deserialize)]
struct PandasColumn {
    field_name: Option<String>,
    metadata: Option<serde_json::Value>,
}

/// Time zones by column. Columns in UTC are left out, because nobody trades in it, and so are zones that this system does not know.
pub(super) fn of_columns(metadata: &FileMetaData) -> HashMap<String, TimeZone> {
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    let text = pairs.filter(|pair| pair.key == "pandas").find_map(|pair| pair.value.as_deref());
    let columns =
        text.and_then(|text| serde_json::from_str::<Pandas>(text).ok()).map(|pandas| pandas.columns);
    let zones = columns.into_iter().flatten().filter_map(|column| {
        let zone = column.metadata?.get("timezone").and_then(|name| name.as_str().and_then(known))?;
        Some((column.field_name?, zone))
    });
    zones.collect()
}

/// `Asia/Tokyo`, `+09:00` or `UTC+09:00`.
fn known(name: &str) -> Option<TimeZone> {
    const UTC: &[&str] = &["UTC", "Etc/UTC", "GMT", "Z", "+00:00", "UTC+00:00"];
    if UTC.contains(&name) {
        return None;
    }
    let offset = parse(&format!("2000-01-01 00:00{}", name.trim_start_matches("UTC"))).ok();
    let offset = offset.and_then(|stamp| Offset::from_seconds(60 * i32::from(stamp.offset?)).ok());
    offset.map(TimeZone::fixed).or_else(|| TimeZone::get(name).ok())
}
