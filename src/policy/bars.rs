//! The kind of bars that a policy was trained on.

use serde::{Deserialize, Serialize};

use crate::market::Candles;

/// Distance of training bars, and whether they had volume. A policy is of no use on other bars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingBars {
    /// Median distance of two bars, in seconds.
    pub seconds: f64,
    /// Whether the candles had volume.
    pub volume: bool,
}

impl TrainingBars {
    /// Those of candles.
    #[must_use]
    pub fn of(candles: &Candles) -> Self {
        let mut distances: Vec<f64> =
            candles.timestamps.windows(2).map(|pair| pair[0].duration_until(pair[1]).as_secs_f64()).collect();
        let middle = distances.len() / 2;
        let seconds = match distances.is_empty() {
            true => 0.0,
            false => *distances.select_nth_unstable_by(middle, f64::total_cmp).1,
        };
        Self { seconds, volume: candles.volume.is_some() }
    }

    /// The difference to `candles` that makes the policy useless on them, if there is one.
    #[must_use]
    pub fn difference(&self, candles: &Candles) -> Option<String> {
        let here = Self::of(candles);
        // Months have 28 to 31 days; the lengths in use differ by more.
        let ratio = here.seconds / self.seconds;
        if self.seconds > 0.0 && here.seconds > 0.0 && !(0.8..=1.25).contains(&ratio) {
            return Some(format!(
                "the model was trained on bars of {}, and these candles have bars of {}",
                Span(self.seconds),
                Span(here.seconds)
            ));
        }
        if self.volume && !here.volume {
            return Some("the model was trained on candles with volume, and these have none".into());
        }
        None
    }
}

/// A distance of bars for messages.
struct Span(f64);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (0.0, "seconds")];
        let (length, name) =
            units.into_iter().find(|(length, _)| self.0 >= *length).unwrap_or((0.0, "seconds"));
        let count = self.0 / length.max(1.0);
        let name = if count == 1.0 { &name[..name.len() - 1] } else { name };
        write!(f, "{} {name}", (count * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::Array2;

    use super::*;

    fn candles(minutes: &[i64], volume: bool) -> Candles {
        let start = date(2024, 1, 1).at(0, 0, 0, 0);
        let mut time = start;
        let timestamps: Vec<_> = std::iter::once(start)
            .chain(minutes.iter().map(|step| {
                time = time.saturating_add(step.minutes());
                time
            }))
            .collect();
        let prices = Array2::from_elem((1, timestamps.len()), 10.0);
        let volume = volume.then(|| prices.clone());
        let [open, high, low, close] = [(); 4].map(|()| prices.clone());
        Candles::new(vec!["AAA".into()], timestamps, open, high, low, close, volume).unwrap()
    }

    #[test]
    fn other_distances_and_missing_volume_are_differences() {
        let day = 24 * 60;
        // Four weekdays and a weekend.
        let daily = TrainingBars::of(&candles(&[day, day, day, day, 3 * day], true));
        assert_eq!(daily, TrainingBars { seconds: 86_400.0, volume: true });
        assert_eq!(daily.difference(&candles(&[day; 9], true)), None);
        let hourly = daily.difference(&candles(&[60; 9], true)).unwrap();
        assert_eq!(hourly, "the model was trained on bars of 1 day, and these candles have bars of 1 hour");
        assert!(daily.difference(&candles(&[90; 9], true)).unwrap().ends_with("bars of 1.5 hours"));
        let four = TrainingBars::of(&candles(&[240; 9], true));
        assert!(four.difference(&candles(&[360; 9], true)).unwrap().contains("bars of 4 hours"));
        assert!(daily.difference(&candles(&[day; 9], false)).unwrap().contains("these have none"));
        // Volume that the policy never saw does no harm.
        let plain = TrainingBars { volume: false, ..daily };
        assert_eq!(plain.difference(&candles(&[day; 9], true)), None);
        // Months of 28 to 31 days.
        let monthly = TrainingBars::of(&candles(&[31 * day, 29 * day, 31 * day], true));
        assert_eq!(monthly.difference(&candles(&[28 * day, 31 * day, 30 * day], true)), None);
    }
}
