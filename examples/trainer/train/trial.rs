//! The entry of a training in the ledger of trials.

use std::ops::Range;

use anyhow::Result;
use phalanx::backtest::Backtest;
use phalanx::env::TradingSettings;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, MarketData};
use phalanx::policy::Policy;

use crate::assess::{self, LEAST_BARS, Traded};
use crate::console::{self, note};
use crate::folder::Folder;
use crate::held_out::replay_options;
use crate::run::Settings;

/// Records the account of the model on the bars that evaluated it, by the rules of the evaluation: a later choice among such trainings is
/// one of many trials on these bars. The training is worth the same, whatever the ledger is like: its errors are only told.
pub fn record(
    run: (&Folder, &Settings, &TradingSettings),
    gpu: &Gpu,
    candles: &Candles,
    policy: (&Policy, &MarketData),
    bars: Range<usize>,
) {
    if let Err(error) = try_record(run, gpu, candles, policy, bars) {
        note!("warning: the evaluation of this training is not in the ledger of trials: {error:#}");
    }
}

fn try_record(
    (folder, settings, rules): (&Folder, &Settings, &TradingSettings),
    gpu: &Gpu,
    candles: &Candles,
    (policy, data): (&Policy, &MarketData),
    bars: Range<usize>,
) -> Result<()> {
    if bars.len() < LEAST_BARS {
        return Ok(());
    }
    console::busy("recording the evaluation");
    let options = replay_options(rules, &settings.data, None, candles)?;
    let targets = policy.targets(gpu, data, &bars)?;
    let backtest = Backtest::replay(candles, bars.clone(), targets.view(), &options)?;
    let traded = Traded {
        command: super::COMMAND,
        name: folder.name(),
        settings: vec![settings],
        candles,
        known: true,
        bars,
        targets: targets.view(),
        options: &options,
        backtest: &backtest,
        gpu,
    };
    assess::record(folder, &traded)?;
    Ok(())
}
