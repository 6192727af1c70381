//! The market that a policy was trained in.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::bars::TrainingBars;
use super::metadata::{ActionSpec, ModelMetadata};
use crate::env::TradingSettings;
use crate::market::{MarketData, ScalingStatistics};
use crate::{Error, Result};

/// Names of the two features of a position, which follow those of the bar: the target level, and the weight in the account.
const POSITION: [&str; 2] = ["position", "weight of the position"];

/// Rules and scaling of the market that a policy was trained in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarketMetadata {
    /// Market settings of the training.
    pub settings: TradingSettings,
    /// Scaling statistics of the training bars, with the names of instruments and features in order.
    pub scaling: ScalingStatistics,
    /// First training bar.
    pub train_from: DateTime,
    /// Last training bar.
    pub train_to: DateTime,
    /// First held-out bar.
    pub test_from: DateTime,
    /// The kind of bars of the training; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<TrainingBars>,
}

impl MarketMetadata {
    /// Names of an agent's features in this market, in order: those of a bar, and those of the position.
    #[must_use]
    pub fn features(&self) -> Vec<String> {
        self.scaling.features.iter().cloned().chain(POSITION.map(String::from)).collect()
    }

    /// Checks that the features of `data` were scaled with these statistics.
    pub(super) fn check_scaling(&self, data: &MarketData) -> Result<()> {
        if data.scaling() == &self.scaling {
            return Ok(());
        }
        Err(Error::Data(
            "the market's features were scaled with other statistics than the model's: load the data with `Scaling::Given` and \
             the model's `scaling`"
                .into(),
        ))
    }

    /// Checks that rules and statistics are valid, and that the networks are those of such a market.
    pub(super) fn validate(&self, model: &ModelMetadata) -> Result<()> {
        self.settings.validate().map_err(|error| match error {
            Error::Config { key, reason } => Error::Config { key: format!("market.{key}"), reason },
            other => other,
        })?;
        self.scaling.validate()?;
        let network = &model.network;
        if network.state_dim != 0 {
            return Err(Error::shape("global state of a `market`", "none", network.state_dim));
        }
        let (agents, features) = (self.scaling.symbols.len(), self.features().len());
        if (network.agents as usize, network.obs_dim as usize) != (agents, features) {
            let got = format!("{} and {}", network.agents, network.obs_dim);
            return Err(Error::shape("instruments and features", format!("{agents} and {features}"), got));
        }
        if !model.features.is_empty() && model.features != self.features() {
            let expected = self.features().join(", ");
            return Err(Error::shape("`features`", expected, model.features.join(", ")));
        }
        let fitting = match &model.actions {
            ActionSpec::Discrete { choices } => {
                !self.settings.continuous() && choices[..] == [self.settings.actions()]
            }
            ActionSpec::Continuous { numbers, .. } => self.settings.continuous() && *numbers == 1,
        };
        if !fitting {
            return Err(Error::shape(
                "`actions`",
                "those of `market.positions`",
                format!("{:?}", model.actions),
            ));
        }
        Ok(())
    }
}
