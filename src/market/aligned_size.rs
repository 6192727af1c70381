//! The memory of aligned candles, known before it is allocated.

use super::{GapPolicy, LoadLimits};
use crate::{Error, Result};

/// Size of aligned candles.
#[derive(Clone, Copy)]
pub(super) struct AlignedSize {
    /// Instruments and timestamps.
    pub shape: (usize, usize),
    /// Numbers of a bar.
    pub numbers: usize,
    pub policy: GapPolicy,
}

impl AlignedSize {
    /// Number of bars of all instruments, if it is within the limits.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not.
    pub fn bars(self, limits: &LoadLimits) -> Result<usize> {
        let bars = self.shape.0.checked_mul(self.shape.1);
        match bars.filter(|bars| *bars as u64 <= limits.bars) {
            Some(bars) => Ok(bars),
            None => Err(self.refusal(&format!("more than {}", limits.bars), ", or raise data.limits.bars")),
        }
    }

    /// Allocates room for `bars` values.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no such memory.
    pub fn reserve<T>(self, values: &mut Vec<T>, bars: usize) -> Result<()> {
        let failed = |_| self.refusal("more than the memory of this machine holds", "");
        values.try_reserve_exact(bars).map_err(failed)
    }

    fn refusal(self, problem: &str, more: &str) -> Error {
        let (instruments, timestamps) = self.shape;
        let bars = instruments as f64 * timestamps as f64;
        let mebibytes = bars * (8 * self.numbers + 1) as f64 / f64::from(1 << 20);
        let policy = match self.policy {
            GapPolicy::ForwardFill => "choose the gap policy `drop`, ",
            GapPolicy::Reject | GapPolicy::Drop => "",
        };
        Error::Data(format!(
            "{instruments} instruments x {timestamps} timestamps are {bars:.0} bars ({mebibytes:.0} MiB), {problem}: {policy}load \
             fewer instruments or a shorter period{more}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_memory_holds_is_an_error() {
        let size = AlignedSize { shape: (1 << 40, 1 << 20), numbers: 5, policy: GapPolicy::Drop };
        let error = size.reserve(&mut Vec::<f64>::new(), 1 << 60).map_err(|error| error.to_string());
        let text = error.expect_err("an exbibyte");
        assert!(
            text.contains("more than the memory of this machine holds: load fewer instruments"),
            "{text}"
        );
        let size = AlignedSize { shape: (usize::MAX, 2), ..size };
        let limits = LoadLimits { bars: u64::MAX, ..LoadLimits::default() };
        assert!(size.bars(&limits).is_err());
    }
}
