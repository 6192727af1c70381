//! The kind of bars that a policy was trained on.

use jiff::SignedDuration;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::market::{Candles, are_of_two_lengths, median_spacing};

/// Distance of training bars, and whether they had volume. A policy is of no use on other bars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingBars {
    /// Median distance of two bars; zero if there is one bar only.
    // A number of seconds, under this name, in models from before it was a duration.
    #[serde(alias = "seconds", deserialize_with = "duration")]
    pub spacing: SignedDuration,
    /// Whether the candles had volume.
    pub volume: bool,
}

/// A duration as ISO 8601 writes it, or a number of seconds.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Duration(SignedDuration),
        Seconds(f64),
    }
    match Written::deserialize(deserializer)? {
        Written::Duration(duration) => Ok(duration),
        Written::Seconds(seconds) => SignedDuration::try_from_secs_f64(seconds).map_err(D::Error::custom),
    }
}

impl TrainingBars {
    /// Those of candles.
    #[must_use]
    pub fn of(candles: &Candles) -> Self {
        let spacing = median_spacing(candles.timestamps.iter().copied()).unwrap_or_default();
        Self { spacing, volume: candles.volume.is_some() }
    }

    /// The difference of other bars from these, if there is one, as in "bars 1h apart instead of 24h": their distance, or whether they
    /// have volume.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let known = self.spacing.is_positive() && other.spacing.is_positive();
        if known && are_of_two_lengths(self.spacing, other.spacing) {
            return Some(format!("bars {:#} apart instead of {:#}", other.spacing, self.spacing));
        }
        (self.volume != other.volume).then(|| match other.volume {
            true => "candles with volume instead of candles without".into(),
            false => "candles without volume instead of candles with it".into(),
        })
    }

    /// The difference of `candles` from these bars that makes the policy useless on them, if there is one, as
    /// [`TrainingBars::difference`]. Volume that the policy never saw does no harm.
    #[must_use]
    pub fn difference_of_candles(&self, candles: &Candles) -> Option<String> {
        let here = Self::of(candles);
        let difference = self.difference(&Self { volume: here.volume && self.volume, ..here })?;
        Some(format!("the model was trained on other candles: these are {difference}"))
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
        let of = |bars: &TrainingBars, minutes: &[i64], volume: bool| {
            bars.difference_of_candles(&candles(minutes, volume))
        };
        assert_eq!(daily, TrainingBars { spacing: SignedDuration::from_hours(24), volume: true });
        assert_eq!(of(&daily, &[day; 9], true), None);
        let hourly = of(&daily, &[60; 9], true).unwrap();
        assert_eq!(hourly, "the model was trained on other candles: these are bars 1h apart instead of 24h");
        assert!(of(&daily, &[90; 9], true).unwrap().contains("bars 1h 30m apart instead"));
        let four = TrainingBars::of(&candles(&[240; 9], true));
        assert!(of(&four, &[360; 9], true).unwrap().ends_with("instead of 4h"));
        let without = of(&daily, &[day; 9], false).unwrap();
        assert!(
            without.ends_with("these are candles without volume instead of candles with it"),
            "{without}"
        );
        // Volume that the policy never saw does no harm, but makes another policy's bars others.
        let plain = TrainingBars { volume: false, ..daily };
        assert_eq!(of(&plain, &[day; 9], true), None);
        let with = plain.difference(&daily).unwrap();
        assert_eq!(with, "candles with volume instead of candles without");
        // Months of 28 to 31 days.
        let monthly = TrainingBars::of(&candles(&[31 * day, 29 * day, 31 * day], true));
        assert_eq!(of(&monthly, &[28 * day, 31 * day, 30 * day], true), None);
    }

    #[test]
    fn bars_of_older_models_are_read() {
        let hour = TrainingBars { spacing: SignedDuration::from_hours(1), volume: true };
        let written = serde_json::to_string(&hour).unwrap();
        for text in [&written, r#"{"seconds":3600.0,"volume":true}"#] {
            assert_eq!(serde_json::from_str::<TrainingBars>(text).unwrap(), hour, "{text}");
        }
        for seconds in ["1e300", "null", "\"soon\""] {
            let text = format!(r#"{{"seconds":{seconds},"volume":true}}"#);
            assert!(serde_json::from_str::<TrainingBars>(&text).is_err(), "{seconds}");
        }
    }
}
