//! Periods of the indicators.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Periods in bars, by default TA-Lib's (the stochastic's is its usual 14 and 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Wilder period of the relative strength index, 2 to 100000.
    pub rsi_period: u32,
    /// Period of the MACD's fast average, 2 to 100000 and below the slow one.
    pub macd_fast: u32,
    /// Period of the MACD's slow average, 2 to 100000.
    pub macd_slow: u32,
    /// Period of the MACD's signal line, 2 to 100000.
    pub macd_signal: u32,
    /// Window of the Bollinger bands, 2 to 100000.
    pub bollinger_period: u32,
    /// Distance of the bands from the middle in population standard deviations, above 0 and at most 100.
    pub bollinger_deviations: f64,
    /// Wilder period of the average true range, 2 to 100000.
    pub atr_period: u32,
    /// Distance of the two prices of the momentum, 1 to 100000.
    pub momentum_period: u32,
    /// Window of the stochastic's range, 1 to 100000.
    pub stochastic_k: u32,
    /// Window of the stochastic's mean, 1 to 100000.
    pub stochastic_d: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            rsi_period: 14,
            macd_fast: 12,
            macd_slow: 26,
            macd_signal: 9,
            bollinger_period: 20,
            bollinger_deviations: 2.0,
            atr_period: 14,
            momentum_period: 10,
            stochastic_k: 14,
            stochastic_d: 3,
        }
    }
}

/// Largest period, as in TA-Lib.
const LONGEST: u32 = 100_000;

impl Parameters {
    /// Checks every period against its bounds.
    ///
    /// # Errors
    /// [`Error::Config`] naming the parameter and its bounds.
    pub fn validate(&self) -> Result<()> {
        let periods = [
            ("rsi_period", self.rsi_period, 2),
            ("macd_fast", self.macd_fast, 2),
            ("macd_slow", self.macd_slow, 2),
            ("macd_signal", self.macd_signal, 2),
            ("bollinger_period", self.bollinger_period, 2),
            ("atr_period", self.atr_period, 2),
            ("momentum_period", self.momentum_period, 1),
            ("stochastic_k", self.stochastic_k, 1),
            ("stochastic_d", self.stochastic_d, 1),
        ];
        for (key, value, least) in periods {
            if !(least..=LONGEST).contains(&value) {
                return Err(Error::config(key, format!("{value} bars; it has to be {least} to {LONGEST}")));
            }
        }
        if self.macd_fast >= self.macd_slow {
            let (fast, slow) = (self.macd_fast, self.macd_slow);
            return Err(Error::config("macd_fast", format!("{fast} has to be below macd_slow, {slow}")));
        }
        let deviations = self.bollinger_deviations;
        if !(deviations > 0.0 && deviations <= 100.0) {
            let reason = format!("{deviations} deviations; it has to be above 0 and at most 100");
            return Err(Error::config("bollinger_deviations", reason));
        }
        Ok(())
    }

    /// 0-based position of the first bar at which every indicator has a value.
    #[must_use]
    pub fn warm_up(&self) -> u32 {
        let both = |a: u32, b: u32| a.saturating_add(b).saturating_sub(2);
        [
            self.rsi_period,
            both(self.macd_slow, self.macd_signal),
            self.bollinger_period.saturating_sub(1),
            self.atr_period,
            self.momentum_period,
            both(self.stochastic_k, self.stochastic_d),
        ]
        .into_iter()
        .fold(0, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_the_macd_is_last() {
        Parameters::default().validate().unwrap();
        assert_eq!(Parameters::default().warm_up(), 33);
    }

    #[test]
    fn errors_name_the_parameter_and_its_bounds() {
        let wrong = |change: fn(&mut Parameters)| {
            let mut parameters = Parameters::default();
            change(&mut parameters);
            parameters.validate().unwrap_err().to_string()
        };
        for (text, parts) in [
            (wrong(|p| p.rsi_period = 1), ["rsi_period", "2 to 100000"]),
            (wrong(|p| p.atr_period = 100_001), ["atr_period", "2 to 100000"]),
            (wrong(|p| p.stochastic_d = 0), ["stochastic_d", "1 to 100000"]),
            (wrong(|p| p.macd_fast = 26), ["macd_fast", "below macd_slow"]),
            (wrong(|p| p.bollinger_deviations = f64::NAN), ["bollinger_deviations", "above 0"]),
        ] {
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let least = Parameters { momentum_period: 1, stochastic_k: 1, ..Parameters::default() };
        least.validate().unwrap();
    }
}
