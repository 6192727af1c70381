//! Reads Parquet files, with the cargo feature `parquet`.

use crate::{Error, Result};
use std::io::{ErrorKind, Read};
use std::path::Path;

#[cfg(feature = "parquet")]
#[path = "parquet_columns.rs"]
mod columns;

#[cfg(feature = "parquet")]
pub(super) use columns::read;

/// Whether the file starts like a Parquet file, whatever its name.
pub(super) fn is_parquet(path: &Path) -> Result<bool> {
    let mut start = [0; 4];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) => Ok(start == *b"PAR1"),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io(path)(error)),
    }
}

#[cfg(not(feature = "parquet"))]
pub(super) fn read(path: &Path, _: &mut super::Loader) -> Result<()> {
    let reason = "Parquet is not built in: build with the cargo feature `parquet` (cargo build --release --features parquet \
                  --example trainer), or save the file as CSV";
    Err(super::fault(path, None, None, reason))
}

#[cfg(test)]
mod tests {
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
    /// zstd) and with other types: text timestamps and gzip, days and decimals, INT96.
    #[test]
    #[cfg(feature = "parquet")]
    fn parquet_and_csv_are_the_same_bits() {
        let expected = Candles::load(&[fixture("candles.csv")], GapPolicy::Reject).expect("CSV");
        assert_eq!((expected.instruments(), expected.bars()), (2, 40));
        for name in ["pandas", "polars", "text", "days", "int96"] {
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
