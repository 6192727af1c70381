//! The worth of a result: how much of it is skill, and how much is luck or the number of tries.
//!
//! * [`Assessment`]: everything below in one judgement on a backtest.
//! * [`expanding`], [`rolling`] and [`combinatorial`]: folds on which agents are retrained and tested.
//! * [`Baseline`]: rules without learning on the same bars and at the same costs; [`random_timing`]: the same positions at other times;
//!   [`random_timing_on_device`]: the same on the device.
//! * [`ReturnStatistics`] and [`SharpeEstimate`]: moments of returns, probabilistic and deflated Sharpe ratio, minimum track
//!   record length.
//! * [`probability_of_overfitting`]: how often the best of several trials falls below the median on other bars.
//! * [`future_alteration`] and [`moved_decisions`]: find features, decisions and rewards that know later candles.
//! * [`next_returns`] and [`shuffled`]: controls of a training, one that must win and one that must not.
//! * [`Trials`]: the ledger of all accounts that were traded on held-out bars.
//! * [`StationaryBootstrap`] and [`automatic_block_length`]: resampling of dependent returns.
//! * [`confidence_interval`] and [`paired_difference`]: intervals of any statistic of one strategy, and of the difference
//!   between two.
//! * [`superiority()`]: whether the best of many strategies beats a benchmark, and which of them do.
//!
//! Everything else runs on the CPU in f64. The statistics take simple returns per bar, and nothing in them is annualised: a Sharpe ratio is
//! the one of a bar.
//! Kurtosis is raw, 3 for a normal distribution. Values that are not defined are `None` or an error, never NaN.

mod alteration;
mod assessment;
mod baselines;
mod block_length;
mod bootstrap;
mod checks;
mod controls;
mod folds;
mod intervals;
#[cfg(test)]
mod layout_tests;
mod normal;
mod overfitting;
mod random_timing;
mod sharpe;
mod statistic;
mod superiority;
#[cfg(test)]
mod testing;
mod trials;

pub use alteration::{Alteration, Leak, Moved, altered, future_alteration, moved_decisions};
pub use assessment::{Assessment, AssessmentOptions, Comparison, Verdict};
pub use baselines::Baseline;
pub use block_length::automatic_block_length;
pub use bootstrap::{Resampling, StationaryBootstrap};
pub use controls::{next_returns, shuffled};
pub use folds::{Fold, combinatorial, expanding, paths, rolling};
pub use intervals::{BootstrapInterval, PairedDifference, confidence_interval, paired_difference};
pub use overfitting::{Degradation, Measure, Overfitting, probability_of_overfitting};
pub use random_timing::{RandomTiming, random_timing, random_timing_on, random_timing_on_device};
pub use sharpe::{DeflatedSharpe, ReturnStatistics, SharpeEstimate, expected_maximum_sharpe};
pub use statistic::{max_drawdown, sharpe_ratio, total_return};
pub use superiority::{RealityCheck, Spa, Superiority, superiority};
pub use trials::{Receipt, Trial, Trials};

use crate::gpu::{Class, Shader, Variant};

/// The kernels of this module, each with every variant it is compiled in.
#[must_use]
pub(crate) fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    vec![(random_timing::SHADER, Variant::wide(class))]
}
