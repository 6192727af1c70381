//! Limits on the memory that a candle file can claim.

use serde::{Deserialize, Serialize};

/// Limits on what candle files may make the reader allocate. They are checked while files are read, and an error names the one that was
/// exceeded, here and as the trainer's setting (`data.limits.bars`). The defaults are above most honest files.
///
/// ```
/// use phalanx::market::{LoadLimits, LoadOptions};
///
/// let mut options = LoadOptions::default();
/// options.limits.bars = 1_000_000;
/// assert!(options.limits != LoadLimits::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LoadLimits {
    /// Most bytes of a line, or of a row whose quoted fields span lines.
    pub line_bytes: usize,
    /// Most fields of a line, or columns of a Parquet file.
    pub fields: usize,
    /// Most bars of all instruments together, as read, and again after missing ones were filled.
    pub bars: u64,
    /// Most instruments.
    pub symbols: usize,
    /// Most decompressed bytes for each byte of a compressed file, beyond [`LoadLimits::unpacked_bytes`].
    pub unpacked_ratio: u64,
    /// Decompressed bytes of a file that are accepted whatever its size is.
    pub unpacked_bytes: u64,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            line_bytes: 1 << 20,
            fields: 1 << 16,
            bars: 100_000_000,
            symbols: 100_000,
            unpacked_ratio: 100,
            unpacked_bytes: 64 << 20,
        }
    }
}

impl LoadLimits {
    /// Most decompressed bytes of a file of `packed` bytes.
    pub(super) fn unpacked(&self, packed: u64) -> u64 {
        self.unpacked_bytes.saturating_add(self.unpacked_ratio.saturating_mul(packed))
    }

    /// The reason of an error for a file that decompresses to more than it may.
    pub(super) fn unpacked_refusal(&self, packed: u64) -> String {
        format!(
            "decompressed, the first {packed} bytes of the file are more than {} bytes ({} and {} times those of the file), which no \
             candles are: check where the file comes from, or raise data.limits.unpacked_ratio",
            self.unpacked(packed),
            self.unpacked_bytes,
            self.unpacked_ratio
        )
    }

    /// The reason of an error for too many fields, which begins with what was `found`.
    pub(super) fn fields_refusal(&self, found: &str) -> String {
        format!("{found}, and at most {} are read: check the file, or raise data.limits.fields", self.fields)
    }

    /// The reason of an error for too many bars.
    pub(super) fn bars_refusal(&self) -> String {
        format!(
            "the files have more than {} bars: load fewer instruments or a shorter period, or raise data.limits.bars",
            self.bars
        )
    }
}
