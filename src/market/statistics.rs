//! The statistics by which features are scaled.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Source of the scaling statistics.
#[derive(Clone, Debug)]
pub enum Scaling {
    /// Computed from these bars. Pass training bars only: other bars would leak future data into the features.
    Fit(Range<usize>),
    /// Computed from several ranges of training bars, which are ascending and do not overlap.
    FitWithin(Vec<Range<usize>>),
    /// Fitted earlier, usually read from a model file.
    Given(ScalingStatistics),
}

/// Mean and standard deviation of every feature of every instrument over the training bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingStatistics {
    /// Names of the features, in order.
    pub features: Vec<String>,
    /// Symbols of the instruments, in order.
    pub symbols: Vec<String>,
    /// `[instrument][feature][mean, standard deviation]`
    pub moments: Vec<[f32; 2]>,
}

impl ScalingStatistics {
    /// Checks that there is a finite mean and a finite deviation of at least 0 per instrument and feature.
    pub(crate) fn validate(&self) -> Result<()> {
        let expected = self.symbols.len() * self.features.len();
        if self.moments.len() != expected {
            return Err(Error::shape("`scaling.moments`", expected, self.moments.len()));
        }
        let valid =
            |[mean, deviation]: &[f32; 2]| mean.is_finite() && deviation.is_finite() && *deviation >= 0.0;
        match self.moments.iter().position(|moments| !valid(moments)) {
            Some(index) => Err(Error::Data(format!(
                "`scaling.moments` {index} is {:?} ({}), expected a finite mean and a deviation of at least 0",
                self.moments[index],
                self.column(index)
            ))),
            None => Ok(()),
        }
    }

    /// Feature and symbol of the statistics at `index`.
    fn column(&self, index: usize) -> String {
        let count = self.features.len().max(1);
        let name = |names: &[String], at: usize| names.get(at).cloned().unwrap_or_default();
        format!("feature `{}` of {}", name(&self.features, index % count), name(&self.symbols, index / count))
    }

    /// Checks statistics that were just computed.
    pub(super) fn fitted(self) -> Result<Self> {
        match self.moments.iter().position(|moments| !moments.iter().all(|value| value.is_finite())) {
            Some(index) => {
                let [mean, deviation] = self.moments[index];
                Err(Error::Data(format!(
                    "{} has the mean {mean} and the standard deviation {deviation} over the training bars, which have to be \
                     finite: one of its prices or volumes is far beyond the others; correct the candles",
                    self.column(index)
                )))
            }
            None => Ok(self),
        }
    }

    /// The statistics for candles with these symbols and features.
    ///
    /// # Errors
    /// [`Error::Data`] if they are those of others.
    pub(super) fn of(&self, symbols: &[String], features: &[String]) -> Result<&[[f32; 2]]> {
        if self.symbols != symbols {
            let (of, got) = (self.symbols.join(", "), symbols.join(", "));
            return Err(Error::Data(format!(
                "the model was trained on the instruments {of}, but the candles hold {got}; load the same instruments in \
                 the same order"
            )));
        }
        if self.features != features {
            let (of, got) = (self.features.join(", "), features.join(", "));
            return Err(Error::Data(format!(
                "the model was trained on the features {of}, but the data have {got}; supply the same features in the same \
                 order"
            )));
        }
        self.validate()?;
        Ok(&self.moments)
    }
}
