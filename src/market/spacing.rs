//! The distance of bars in time.

use jiff::SignedDuration;
use jiff::civil::DateTime;

/// Median distance of neighbouring bars, the lower one of two; `None` with fewer than two bars.
pub(crate) fn median_spacing(timestamps: impl Iterator<Item = DateTime> + Clone) -> Option<SignedDuration> {
    let pairs = timestamps.clone().zip(timestamps.skip(1));
    let mut spacings: Vec<_> = pairs.map(|(before, after)| after.duration_since(before)).collect();
    let middle = spacings.len().checked_sub(1)? / 2;
    Some(*spacings.select_nth_unstable(middle).1)
}

/// Whether these are distances of bars of two lengths. Months have 28 to 31 days; the lengths in use differ by more.
pub(crate) fn are_of_two_lengths(one: SignedDuration, other: SignedDuration) -> bool {
    !(0.8..=1.25).contains(&(other.as_secs_f64() / one.as_secs_f64()))
}
