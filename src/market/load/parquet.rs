//! Reads Parquet files, with the cargo feature `parquet`.

use crate::Result;
use std::fs::File;
use std::path::Path;

#[cfg(feature = "parquet")]
#[path = "parquet_columns.rs"]
mod columns;

#[cfg(feature = "parquet")]
#[path = "parquet_values.rs"]
mod values;

#[cfg(feature = "parquet")]
#[path = "parquet_zones.rs"]
mod zones;

/// Reads the bars of a file.
#[cfg(feature = "parquet")]
pub(super) fn read(path: &Path, file: File, loader: &mut super::Loader) -> Result<()> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // The crate panics on some damaged files. After an error nothing of the loader is used.
    let read = catch_unwind(AssertUnwindSafe(|| columns::read(path, file, loader)));
    read.unwrap_or_else(|_| {
        let reason = "the reader of Parquet files gave up on it: it is damaged, use another copy of it";
        Err(super::fault(path, None, None, reason))
    })
}

#[cfg(not(feature = "parquet"))]
pub(super) fn read(path: &Path, _: File, _: &mut super::Loader) -> Result<()> {
    let reason = "Parquet is not built in: build with the cargo feature `parquet` (cargo build --release --features parquet \
                  --example trainer), or save the file as CSV";
    Err(super::fault(path, None, None, reason))
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "parquet")]
    use crate::market::LoadOptions;
    use crate::market::{Candles, GapPolicy};
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/candles", name].iter().collect()
    }

    #[test]
    #[cfg(not(feature = "parquet"))]
    fn without_the_feature_the_error_names_it() {
        let error = Candles::load(&[fixture("candles_pandas.parquet")], GapPolicy::Reject).map(|_| ());
        let error = error.expect_err("a Parquet file").to_string();
        assert!(
            error.contains("candles_pandas.parquet: Parquet is not built in")
                && error.contains("--features parquet")
        );
    }

    #[cfg(feature = "parquet")]
    fn bits(array: &ndarray::Array2<f64>) -> Vec<u64> {
        array.iter().map(|value| value.to_bits()).collect()
    }

    /// The same candles as CSV, and as Parquet written by pyarrow from pandas (nanoseconds, snappy, dictionary), by polars (microseconds,
    /// zstd) and with other types: text timestamps and gzip, days and decimals, INT96, and beside a volume of zeros.
    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_and_csv_are_the_same_bits() {
        let expected = Candles::load(&[fixture("candles.csv")], GapPolicy::Reject).expect("CSV");
        assert_eq!((expected.instruments(), expected.bars()), (2, 40));
        for name in ["pandas", "polars", "text", "days", "int96", "ticks"] {
            let path = fixture(&format!("candles_{name}.parquet"));
            let candles = Candles::load(&[path], GapPolicy::Reject).expect(name);
            assert_eq!(candles.symbols, expected.symbols, "{name}");
            assert_eq!(candles.timestamps, expected.timestamps, "{name}");
            let volume = (candles.volume.as_ref(), expected.volume.as_ref());
            for (own, other) in [
                (&candles.open, &expected.open),
                (&candles.high, &expected.high),
                (&candles.low, &expected.low),
                (&candles.close, &expected.close),
                (volume.0.expect(name), volume.1.expect(name)),
            ] {
                assert_eq!(bits(own), bits(other), "{name}");
            }
        }
    }

    #[cfg(feature = "parquet")]
    fn loaded(path: impl AsRef<std::path::Path>) -> crate::market::Loaded {
        Candles::load_with(&[path], &LoadOptions::default()).expect("valid candles")
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_and_csv_choose_the_same_volume() {
        let text = std::fs::read_to_string(fixture("candles.csv")).expect("a fixture");
        let text =
            text.replace(",volume\n", ",<TICKVOL>\n").replace('\n', ",0\n").replacen(",0\n", ",<VOL>\n", 1);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("candles_ticks.parquet");
        std::fs::write(&path, text).expect("a writable folder");
        let (csv, parquet) = (loaded(&path), loaded(fixture("candles_ticks.parquet")));
        assert_eq!(
            parquet.report.to_string(),
            "candles_ticks.parquet: volume is `<TICKVOL>`; `<VOL>` not used"
        );
        assert_eq!(parquet.report, csv.report);
        let volumes = [parquet, csv].map(|it| bits(&it.candles.volume.expect("volume")));
        assert_eq!(volumes[0], volumes[1]);
    }

    /// `Decimal(38, 18)`, as Spark writes it.
    #[test]
    #[cfg(feature = "parquet")]
    fn wide_decimals_are_the_numbers_of_their_texts() {
        let close = loaded(fixture("decimals.parquet")).candles.close;
        assert_eq!(close.row(0).to_vec(), [43251.01, 43251.02, 43251.05, 43251.11, 0.00000123]);
    }

    /// Three sessions of Tokyo at midnight there, which is 15:00 of the day before in UTC.
    #[test]
    #[cfg(feature = "parquet")]
    fn daily_instants_have_the_dates_of_their_time_zone() {
        let midnight = |day| jiff::civil::date(2024, 1, day).at(0, 0, 0, 0);
        let local = [5, 8, 9].map(midnight);
        let utc = [4, 7, 8].map(|day| jiff::civil::date(2024, 1, day).at(15, 0, 0, 0));
        let mut names = vec!["tokyo_offset"];
        match jiff::tz::TimeZone::get("Asia/Tokyo") {
            Ok(_) => names.push("tokyo"),
            Err(_) => crate::testing::skip("the system has no database of time zones"),
        }
        for name in names {
            let loaded = loaded(fixture(&format!("{name}.parquet")));
            assert_eq!(loaded.candles.timestamps, local, "{name}");
            assert!(loaded.report.notes.is_empty(), "{}", loaded.report);
        }
        let loaded = loaded(fixture("tokyo_instants.parquet"));
        assert_eq!(loaded.candles.timestamps, utc);
        assert_eq!(
            loaded.report.warnings(),
            [
                "tokyo_instants: daily bars are stamped 15:00 in UTC, so that their dates may be a day off from the exchange's: \
              write dates, or local timestamps without a time zone"
            ]
        );
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn funding_rates_are_read() {
        let loaded = loaded(fixture("perpetual.parquet"));
        assert_eq!(loaded.candles.funding, Some(ndarray::array![[0.0001, 0.0, -0.0003]]));
        assert_eq!(loaded.report.to_string(), "perpetual.parquet: funding rates are `fundingRate`");
    }

    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_is_checked_like_csv() {
        let refused = |name: &str| {
            let error = Candles::load(&[fixture(name)], GapPolicy::Reject).map(|_| ());
            error.expect_err(name).to_string()
        };
        let error = refused("close_above_high.parquet");
        assert!(
            error.contains("column `close`: row 3: close_above_high 2024-01-04: close 9 is outside"),
            "{error}"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let whole = std::fs::read(fixture("candles_pandas.parquet")).expect("a fixture");
        let path = folder.path().join("cut.parquet");
        for length in [4, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).expect("a writable folder");
            let error =
                Candles::load(&[&path], GapPolicy::Reject).map(|_| ()).expect_err("truncated").to_string();
            assert!(error.contains("cut.parquet: could not read the file as Parquet ("), "{error}");
        }
    }
}
