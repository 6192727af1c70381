//! `audit`: looks for what makes a good backtest worthless: knowledge of later candles, fills that cannot be had, costs that were too low, a
//! training that cannot learn or learns from noise, and luck with the seed.

mod record;
mod retraining;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use ndarray::{Array2, s};
use phalanx::backtest::{Backtest, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};
use phalanx::research::{future_alteration, moved_decisions};

use crate::console::{busy, say};
use crate::held_out::{HeldOut, Period, features};
pub use record::{Record, Row};
use retraining::Retraining;

/// Places after which later candles are altered.
const CUTS: usize = 5;

/// Costs of an order in basis points, commission and slippage together.
const LADDER: [f64; 6] = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0];

/// Bars of history before the first traded one, beyond those that features need.
const HISTORY: [usize; 3] = [0, 100, 500];

#[derive(Args)]
pub struct AuditArgs {
    /// Folder of a trained run.
    #[arg(long)]
    run: PathBuf,
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// A limit on candle files, for instance data.limits.bars=500000000; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Leave out what trains again: both controls and the other seeds.
    #[arg(long)]
    quick: bool,
    /// Trainings whose spread is shown, the run being the first unless --iterations shortens them.
    #[arg(long, default_value_t = 5, conflicts_with = "quick")]
    seeds: u64,
    /// Number of iterations of these trainings, if not as many as the run had.
    #[arg(long, conflicts_with = "quick")]
    iterations: Option<u32>,
}

/// Most trainings whose spread is shown.
const MOST_SEEDS: u64 = 1000;

/// The run, and its decisions on the held-out bars.
struct Audited {
    run: HeldOut,
    targets: Array2<f64>,
    /// None of an account that never moved.
    sharpe: Option<f64>,
}

pub fn audit(args: &AuditArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    ensure!(
        (1..=MOST_SEEDS).contains(&args.seeds),
        "--seeds {}: out of range, from 1 to {MOST_SEEDS}",
        args.seeds
    );
    ensure!(args.iterations != Some(0), "--iterations 0: at least one is trained");
    let audited = Audited::new(args, open)?;
    let mut rows = Vec::new();
    audited.alteration(&mut rows)?;
    audited.lag(&mut rows)?;
    audited.ladder(&mut rows)?;
    audited.history(&mut rows)?;
    if !args.quick {
        audited.retrained(args, &mut rows)?;
    }
    let HeldOut { agents, candles, bars, .. } = &audited.run;
    say!("Held-out Sharpe ratio {}, {} bars", ratio(audited.sharpe), bars.len());
    for row in &rows {
        say!("{:<46}{:<58}{}", row.check, row.figure, row.verdict);
    }
    let failed: Vec<_> = rows.iter().filter(|row| row.passed == Some(false)).map(|row| &*row.check).collect();
    match failed[..] {
        [] => say!("Nothing failed."),
        _ => say!("{} of {} checks failed: {}", failed.len(), rows.len(), failed.join("; ")),
    }
    let sound = failed.is_empty();
    let period = [bars.start, bars.end - 1].map(|bar| candles.timestamps[bar]);
    let run = agents.first();
    Record { run: run.number, period, rows }.publish(run.folder.path())?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A Sharpe ratio, or a dash where it is undefined.
fn ratio(sharpe: Option<f64>) -> String {
    sharpe.map_or("-".into(), |sharpe| format!("{sharpe:.2}"))
}

/// Lowest, median and highest of some values, and their deviation.
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
    deviation: f64,
}

impl Spread {
    /// The deviation has the number of values less one; 0 of a single value.
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
        let mean = sorted.iter().sum::<f64>() / count.max(1) as f64;
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            lowest: at(0),
            median: (at(count.saturating_sub(1) / 2) + at(count / 2)) / 2.0,
            highest: at(count.saturating_sub(1)),
            deviation: (squares / count.saturating_sub(1).max(1) as f64).sqrt(),
        }
    }
}

impl Audited {
    fn new(args: &AuditArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<Self> {
        let run =
            HeldOut::open(std::slice::from_ref(&args.run), &args.data, &args.sets, &Period::default(), open)?;
        ensure!(
            run.bars.len() > CUTS + 2,
            "{} held-out bars are too few to audit: more than {} are needed",
            run.bars.len(),
            CUTS + 2
        );
        busy("trading the held-out bars");
        let targets = run.agents.ensemble.targets(&run.gpu, &run.data, &run.bars)?;
        let backtest = Backtest::replay(&run.candles, run.bars.clone(), targets.view(), &run.options)?;
        let sharpe = backtest.metrics.sharpe;
        Ok(Self { run, targets, sharpe })
    }

    /// Whether the timing test has enough shifts for a p-value of 0.05.
    fn can_be_significant(&self) -> bool {
        self.targets.nrows() > 20
    }

    fn retrained(&self, args: &AuditArgs, rows: &mut Vec<Row>) -> Result<()> {
        let Some(retraining) = Retraining::new(self, args.iterations)? else {
            let figure = "not trained again: the candles lack the bars that the run was trained on";
            rows.push(Row::new("Controls and seeds", figure, "give the candles of the training", None));
            return Ok(());
        };
        retraining.announce(args.seeds)?;
        rows.push(retraining.told_the_answer()?);
        rows.push(retraining.on_noise()?);
        if args.seeds > 1 {
            rows.push(retraining.seeds(args.seeds)?);
        }
        Ok(())
    }

    /// Later candles are altered: no earlier feature, decision or reward may change.
    fn alteration(&self, rows: &mut Vec<Row>) -> Result<()> {
        busy("altering later candles");
        let HeldOut { agents, candles, gpu, bars, .. } = &self.run;
        let none = |_: &Candles| Ok(ExtraFeatures::default());
        let market = agents.market()?;
        let scaling = &market.scaling;
        let found = future_alteration(gpu, candles, none, scaling, bars.clone(), CUTS, 0)?;
        let leaks: Vec<_> = found.leaks.iter().map(|leak| leak.feature.as_str()).collect();
        let figure = match leaks.is_empty() {
            true => format!("0 values changed at {CUTS} places"),
            false => format!("changed: {}", leaks.join(", ")),
        };
        let (verdict, passed) = match (leaks.is_empty(), found.conclusive) {
            (true, true) => ("passed", Some(true)),
            (true, false) => ("not conclusive: later features did not change either", None),
            (false, _) => ("FAILED: they know the future", Some(false)),
        };
        rows.push(Row::new("Later candles altered: earlier features", figure, verdict, passed));
        let scaling = Scaling::Given(scaling.clone());
        let moved = moved_decisions(candles, bars, &found.cuts, 0, |candles| {
            let data = MarketData::new(gpu, candles, &ExtraFeatures::default(), &scaling)?;
            agents.ensemble.decisions(gpu, &data, bars)
        })?;
        let mut row = |check: &str, earlier: usize, later: usize, idle: &str| {
            let (verdict, passed) = match (earlier, later) {
                (0, 0) => (format!("not conclusive: {idle}"), None),
                (0, _) => ("passed".into(), Some(true)),
                _ => ("FAILED: they know the future".into(), Some(false)),
            };
            let figure = format!("{earlier} changed; of later ones {later}");
            rows.push(Row::new(check, figure, &verdict, passed));
        };
        row(
            "Later candles altered: earlier decisions",
            moved.earlier_decisions,
            moved.later_decisions,
            "the agents do not react to prices, or the account was closed",
        );
        row(
            "Later candles altered: earlier rewards",
            moved.earlier_rewards,
            moved.later_rewards,
            "the account was flat or closed",
        );
        Ok(())
    }

    /// The Sharpe ratio and the total return of an account.
    fn replay(&self, targets: &Array2<f64>, options: &ReplayOptions) -> Result<(Option<f64>, f64)> {
        let HeldOut { candles, bars, .. } = &self.run;
        let backtest = Backtest::replay(candles, bars.clone(), targets.view(), options)?;
        Ok((backtest.metrics.sharpe, backtest.metrics.total_return))
    }

    /// Every decision is executed a bar later.
    fn lag(&self, rows: &mut Vec<Row>) -> Result<()> {
        let mut late = Array2::zeros(self.targets.raw_dim());
        let decided = self.targets.nrows() - 1;
        late.slice_mut(s![1.., ..]).assign(&self.targets.slice(s![..decided, ..]));
        let (sharpe, total) = self.replay(&late, &self.run.options)?;
        let figure = format!("Sharpe {}, return {:.2} %", ratio(sharpe), total * 100.0);
        let verdict = match (self.sharpe, sharpe) {
            (None, _) => "nothing was traded",
            (Some(own), late) if own > 0.0 && late.unwrap_or(0.0) < 0.5 * own => {
                "the edge needs the next open"
            }
            _ => "holds",
        };
        rows.push(Row::new("Decisions executed one bar later", figure, verdict, None));
        Ok(())
    }

    fn ladder(&self, rows: &mut Vec<Row>) -> Result<()> {
        for bps in LADDER {
            let costs = Costs {
                commission_bps: bps,
                slippage_bps: 0.0,
                commission_per_unit: 0.0,
                min_commission: 0.0,
                spread_bps: Vec::new(),
                ..self.run.options.costs.clone()
            };
            let options = ReplayOptions { costs, ..self.run.options.clone() };
            let (sharpe, total) = self.replay(&self.targets, &options)?;
            let figure = format!("Sharpe {}, return {:.2} %", ratio(sharpe), total * 100.0);
            let verdict = match () {
                () if total > 0.0 => "earns",
                () if total < 0.0 => "loses",
                () => "earns nothing",
            };
            rows.push(Row::new(format!("Orders cost {bps} bps"), figure, verdict, None));
        }
        Ok(())
    }

    /// The candles begin later: recursive indicators have less history.
    fn history(&self, rows: &mut Vec<Row>) -> Result<()> {
        busy("trading with less history");
        let HeldOut { agents, candles, gpu, bars, data, .. } = &self.run;
        let needed = data.first_bar();
        for history in HISTORY {
            let Some(first) = bars.start.checked_sub(needed + history) else { continue };
            let shorter = candles.slice(first..bars.end)?;
            let targets = agents.ensemble.targets(
                gpu,
                &features(gpu, agents.market()?, &shorter)?,
                &(needed + history..shorter.bars()),
            )?;
            let changed = targets.iter().zip(&self.targets).filter(|(a, b)| a != b).count();
            let (sharpe, _) = self.replay(&targets, &self.run.options)?;
            let share = changed as f64 / targets.len() as f64;
            let check = format!("History of {history} bars beyond the features' own");
            let figure = format!("Sharpe {}, {:.1} % of decisions differ", ratio(sharpe), share * 100.0);
            let verdict = if share <= 0.01 { "enough" } else { "give the model more history" };
            rows.push(Row::new(check, figure, verdict, None));
        }
        Ok(())
    }
}
