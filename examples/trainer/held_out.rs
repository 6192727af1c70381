//! A trained run beside the candles that it is tested on: what `backtest` and `audit` have in common.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::civil::DateTime;
use phalanx::backtest::{PeriodsPerYear, ReplayOptions, infer_periods_per_year};
use phalanx::env::TradingSettings;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling, parse_timestamp};
use phalanx::policy::{MarketMetadata, Policy};

use crate::console::{busy, note};
use crate::folder::Folder;
use crate::run::{DataSettings, Settings, end_of};

/// The bars to trade, by default those held out, and how they are judged.
#[derive(Default)]
pub struct Period<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub periods_per_year: Option<f64>,
    /// Whether candles of another kind than those of the training are traded.
    pub force: bool,
}

/// A run and its candles.
pub struct HeldOut {
    pub run: Folder,
    /// Its number when it was read.
    pub number: Option<u64>,
    pub settings: Settings,
    pub policy: Policy,
    pub candles: Candles,
    pub gpu: Gpu,
    pub data: MarketData,
    /// The bars to trade.
    pub bars: Range<usize>,
    /// Whether some of them trained or chose the model.
    pub known: bool,
    pub options: ReplayOptions,
}

impl HeldOut {
    /// Loads everything, and tells what makes the result worth less.
    pub fn open(
        run: &Path,
        data: &[PathBuf],
        sets: &[String],
        period: &Period<'_>,
        open: impl Fn() -> phalanx::Result<Gpu>,
    ) -> Result<Self> {
        let run = Folder::trained(run)?;
        let number = run.run_number();
        let settings = Settings::of_run(&run.settings(), sets)?;
        let policy = Policy::load(&run.model())?;
        let metadata = policy.market()?;
        let candles = crate::candles::load(data, &settings.data)?;
        if let Some(difference) = metadata.bars.and_then(|bars| bars.difference(&candles)) {
            ensure!(
                period.force,
                "{difference}: the results would mean nothing; use --force to trade them anyway"
            );
            note!("warning: {difference}");
        }
        let from = period.from.map(|text| parse_timestamp(text).context("--from")).transpose()?;
        let from = from.unwrap_or(metadata.test_from);
        let to = match (period.to, period.from) {
            (Some(text), _) => candles.index_at_or_after(end_of(text).context("--to")?),
            // A run may have been tested up to a date.
            (None, None) => match settings.data.first_period_ends()? {
                Some(end) => candles.index_at_or_after(end),
                None => settings.data.bars(&candles)?.end,
            },
            (None, Some(_)) => candles.bars(),
        };
        let options = replay_options(&metadata.settings, &settings.data, period.periods_per_year, &candles)?;
        let gpu = open()?;
        let data = features(&gpu, &policy, &candles)?;
        let bars = bars(from, to, &candles, data.first_bar())?;
        let skipped = bars.start - candles.index_at_or_after(from);
        if skipped > 0 {
            note!(
                "Skipped   {} from {from} on: the model's features need {} bars of history, which these candles do not have",
                crate::gaps::counted(skipped),
                data.first_bar()
            );
        }
        let known = warn_of_known_bars(
            metadata,
            &settings,
            candles.timestamps[bars.start],
            candles.timestamps[bars.end - 1],
        )?;
        let others = settings.data.held_out.len().saturating_sub(1);
        if others > 0 && period.from.is_none() && period.to.is_none() {
            note!(
                "Held out  {others} more periods than the one traded here; choose one with --from and --to"
            );
        }
        Ok(Self { run, number, settings, policy, candles, gpu, data, bars, known, options })
    }

    /// The rules of the market that the agents were trained in.
    pub fn market(&self) -> Result<&MarketMetadata> {
        Ok(self.policy.market()?)
    }
}

/// The features of candles, scaled as in the training of a policy.
pub fn features(gpu: &Gpu, policy: &Policy, candles: &Candles) -> Result<MarketData> {
    busy("computing the features");
    let scaling = Scaling::Given(policy.market()?.scaling.clone());
    Ok(MarketData::new(gpu, candles, &ExtraFeatures::default(), &scaling)?)
}

/// The account that agents trade: that of their training, with the bars per year that are given, set, or inferred.
pub fn replay_options(
    market: &TradingSettings,
    data: &DataSettings,
    periods_per_year: Option<f64>,
    candles: &Candles,
) -> Result<ReplayOptions> {
    Ok(ReplayOptions {
        costs: market.costs(&candles.symbols)?,
        max_leverage: market.max_leverage,
        starting_equity: market.starting_equity,
        bankruptcy_level: market.bankruptcy_level,
        periods_per_year: match periods_per_year.or(data.periods_per_year) {
            Some(value) => PeriodsPerYear::given(value)?,
            None => infer_periods_per_year(&candles.timestamps),
        },
    })
}

/// The bars to trade, from `from` up to the bar `end`.
fn bars(from: DateTime, end: usize, candles: &Candles, first: usize) -> Result<Range<usize>> {
    let start = candles.index_at_or_after(from).max(first);
    ensure!(
        end > start + 1,
        "fewer than two bars to trade from {from} on; the candles cover {} to {}, and features start at {}",
        candles.timestamps[0],
        candles.timestamps[candles.bars() - 1],
        candles.timestamps[first.min(candles.bars() - 1)],
    );
    Ok(start..end)
}

/// Warns where bars from `first` to `last` were trained on, or chose the model; returns whether they did.
fn warn_of_known_bars(
    metadata: &MarketMetadata,
    settings: &Settings,
    first: DateTime,
    last: DateTime,
) -> Result<bool> {
    let evaluated = settings.evaluation.every > 0;
    let how = match () {
        () if settings.data.holds_out(first, last)? => return Ok(false),
        () if first <= metadata.train_to && last >= metadata.train_from => "were trained on",
        () if evaluated && first > metadata.train_to && first < metadata.test_from => "chose the model",
        () => return Ok(false),
    };
    note!(
        "warning: some of the bars from {first} to {last} {how}; such results do not predict future performance"
    );
    Ok(true)
}
