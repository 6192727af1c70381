//! The result of a walk: one account over all test parts, and a table of them.

use std::fmt::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::civil::DateTime;
use ndarray::{Array2, s};
use phalanx::backtest::{Backtest, Metrics, ReplayOptions};
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, MarketData, TimestampFormat};
use phalanx::policy::Policy;

use super::cut::{Cut, Part};
use super::fold::Job;
use crate::assess::{self, Assessed, assess};
use crate::console::{self, say};
use crate::evidence::{Evidence, Path};
use crate::folder::{Folder, Owned};
use crate::held_out::{features, replay_options};
use crate::report::{FoldRow, RunInfo, TrainingCurves, render};
use crate::run::Settings;
use crate::settings::write_resolved;
use crate::summary::Summary;

/// The decisions of all agents on the bars that they had not seen.
pub struct Traded {
    /// From the first test bar to the last.
    bars: Range<usize>,
    options: ReplayOptions,
    /// Target positions on every path by every seed, `[path x seeds + seed][bar - 1][instrument]`, of the fold that tests the bar of the
    /// decision on that path.
    targets: Vec<Array2<f64>>,
    seeds: usize,
    gpu: Gpu,
    policy: Policy,
}

impl Traded {
    /// Trades every test part with the agents of its fold. The account that an agent observes starts flat with its part.
    /// The status that `asked` returns ends it early.
    pub fn new(
        gpu: &Gpu,
        candles: &Candles,
        settings: &Settings,
        cut: &Cut,
        jobs: &[Job],
        asked: impl Fn() -> Option<ExitCode>,
    ) -> Result<Result<Self, ExitCode>> {
        let seeds = 1 + jobs.last().context("there are no folds")?.seed;
        let mut bars = cut.tested();
        let mut targets = vec![Array2::zeros((0, 0)); cut.paths * seeds];
        // The seeds of a fold share their scaling.
        let mut data: Option<MarketData> = None;
        let mut latest = None;
        for job in jobs {
            if let Some(status) = asked() {
                return Ok(Err(status));
            }
            console::busy(format!("trading the tests of fold {}", job.fold + 1));
            let policy = Policy::load(&job.folder().model())?;
            let scaling = &policy.market()?.scaling;
            let loaded = match data.take().filter(|data| data.scaling() == scaling) {
                Some(data) => data,
                None => features(gpu, policy.market()?, candles)?,
            };
            if latest.is_none() {
                bars.start = bars.start.max(loaded.first_bar());
                targets.fill(Array2::zeros((bars.len() - 1, candles.symbols.len())));
            }
            for (path, part) in cut.parts_of(job.fold) {
                // The decision after the last bar of a part fills in the next part.
                let decided = part.bars.start.max(bars.start)..(part.bars.end + 1).min(bars.end);
                if decided.len() < 2 {
                    continue;
                }
                let own = policy.targets(gpu, &loaded, &decided)?;
                let rows = decided.start - bars.start..decided.end - 1 - bars.start;
                targets[path * seeds + job.seed].slice_mut(s![rows, ..]).assign(&own);
            }
            data = Some(loaded);
            latest = Some(policy);
        }
        let options = replay_options(&settings.market, &settings.data, None, candles)?;
        let policy = latest.context("there are no folds")?;
        Ok(Ok(Self { bars, options, targets, seeds, gpu: gpu.clone(), policy }))
    }

    /// The mean position of all agents that had not seen a bar.
    fn mean(&self) -> Array2<f64> {
        self.mean_of(|_, _| true)
    }

    /// The mean position of some paths and seeds.
    fn mean_of(&self, chosen: impl Fn(usize, usize) -> bool) -> Array2<f64> {
        let mut mean = Array2::zeros(self.targets[0].raw_dim());
        let mut count = 0.0;
        for (index, targets) in self.targets.iter().enumerate() {
            if chosen(index / self.seeds, index % self.seeds) {
                mean += targets;
                count += 1.0;
            }
        }
        mean / count
    }

    fn replay(&self, candles: &Candles, bars: &Range<usize>, targets: &Array2<f64>) -> Result<Backtest> {
        let rows = bars.start - self.bars.start..bars.end - 1 - self.bars.start;
        Ok(Backtest::replay(candles, bars.clone(), targets.slice(s![rows, ..]), &self.options)?)
    }
}

/// The account of one path.
pub struct PathRow {
    pub metrics: Metrics,
    pub bankrupt_at: Option<DateTime>,
}

pub struct Results {
    /// The account of all paths and seeds over all test parts.
    whole: Backtest,
    /// The account of each seed: seed, metrics, and the time of its bankruptcy.
    seeds: Vec<(u64, Metrics, Option<DateTime>)>,
    /// The account of each path, with the mean of its seeds, where there are several.
    paths: Vec<PathRow>,
    /// A row for every test part.
    folds: Vec<FoldRow>,
    info: RunInfo,
    assessed: Assessed,
}

impl Results {
    pub fn new(
        out: &Folder,
        candles: &Candles,
        settings: &Settings,
        cut: &Cut,
        jobs: &[Job],
        traded: &Traded,
    ) -> Result<Self> {
        let mean = traded.mean();
        let whole = traded.replay(candles, &traded.bars, &mean)?;
        let assessed = assess(
            out,
            &assess::Traded {
                command: super::COMMAND,
                name: out.name(),
                settings: vec![settings],
                candles,
                known: false,
                bars: traded.bars.clone(),
                targets: mean.view(),
                options: &traded.options,
                backtest: &whole,
                gpu: &traded.gpu,
            },
        )?;
        let of_seed = |job: &Job| -> Result<(u64, Metrics, Option<DateTime>)> {
            let targets = traded.mean_of(|_, seed| seed == job.seed);
            let account = traded.replay(candles, &traded.bars, &targets)?;
            Ok((job.settings.mappo.ppo.seed, account.metrics, account.bankrupt_at))
        };
        let seeds = jobs.iter().filter(|job| job.fold == 0).map(of_seed).collect::<Result<Vec<_>>>()?;
        let of_path = |path: usize| -> Result<PathRow> {
            let targets = traded.mean_of(|own, _| own == path);
            let account = traded.replay(candles, &traded.bars, &targets)?;
            Ok(PathRow { metrics: account.metrics, bankrupt_at: account.bankrupt_at })
        };
        let several = (0..cut.paths).filter(|_| cut.paths > 1);
        let paths = several.map(of_path).collect::<Result<Vec<_>>>()?;
        let date = |bar: usize| candles.timestamps[bar];
        let ends = |bars: &Range<usize>| (date(bars.start), date(bars.end - 1));
        let of_part = |part: &Part| -> Result<FoldRow> {
            let test = part.bars.start.max(traded.bars.start)..part.bars.end;
            let account = traded.replay(candles, &test, &mean)?;
            // Of combinations several folds test a part.
            let fold = (cut.paths == 1).then(|| ends(&cut.folds[part.traders[0].1].train[0]));
            let (agents, buy_and_hold) = (account.metrics, account.benchmark);
            let bankrupt_at = account.bankrupt_at;
            Ok(FoldRow { train: fold, test: ends(&test), agents, buy_and_hold, bankrupt_at })
        };
        // The first part may have too little history for the features.
        let tested = cut.parts.iter().filter(|part| part.bars.end > traded.bars.start + 1);
        let folds = tested.map(of_part).collect::<Result<Vec<_>>>()?;
        let info = info(jobs, traded)?;
        Ok(Self { whole, seeds, paths, folds, info, assessed })
    }

    /// Writes the account, the table of folds and the report to the folder.
    pub fn publish(
        &self,
        owned: &mut Owned,
        candles: &Candles,
        settings: &Settings,
        scheme: &str,
    ) -> Result<()> {
        console::busy("writing the report");
        let folder = owned.folder().clone();
        let staging = owned.stage_walk()?;
        let mut evidence = Evidence::new(&self.whole, self.assessed.judgement(), None, &self.folds);
        evidence.paths = self
            .paths
            .iter()
            .map(|path| Path::new(path.metrics, path.bankrupt_at, &self.whole.timestamps))
            .collect();
        phalanx::backtest::write_with(&self.whole, staging.path(), &evidence)?;
        write_resolved(&staging.settings(), settings)?;
        write_atomically(&staging.folds(), self.csv(candles).as_bytes())?;
        let mut info = self.info.clone();
        info.title = folder.name();
        info.folds = self.folds.clone();
        info.more = vec![
            ("Walk-forward".into(), format!("{scheme}, {} test parts", self.folds.len())),
            ("Seeds".into(), format!("{}, whose mean position is traded", self.seeds.len())),
            ("Paths".into(), self.spread()),
            ("Hidden layers".into(), format!("{:?}", settings.mappo.network.hidden)),
            ("Discount".into(), settings.mappo.ppo.gamma.to_string()),
        ];
        self.assessed.keep_receipt(&staging)?;
        let page = render(&self.whole, None, self.assessed.judgement(), &TrainingCurves::default(), &info)?;
        write_atomically(&staging.report(), page.as_bytes())?;
        owned.publish_walk(&staging)
    }

    /// The Sharpe ratios of the paths.
    fn spread(&self) -> String {
        let mut ratios: Vec<_> = self.paths.iter().filter_map(|path| path.metrics.sharpe).collect();
        ratios.sort_by(f64::total_cmp);
        match ratios[..] {
            [lowest, .., highest] => format!(
                "{}, with Sharpe ratios from {lowest:.2} to {highest:.2}, median {:.2}",
                self.paths.len(),
                (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0
            ),
            _ => self.paths.len().max(1).to_string(),
        }
    }

    /// `folds.csv`: a line per test part, one per path where there are several, and one for all.
    fn csv(&self, candles: &Candles) -> String {
        let dates = TimestampFormat::of(&candles.timestamps);
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let figures = |metrics: &Metrics| {
            let Metrics { total_return, max_drawdown, .. } = metrics;
            format!("{total_return},{},{max_drawdown}", number(metrics.sharpe))
        };
        let mut text = String::from(
            "fold,train_from,train_to,test_from,test_to,return,sharpe,max_drawdown,buy_and_hold_return,buy_and_hold_sharpe,\
             buy_and_hold_max_drawdown,bankrupt_at\n",
        );
        let ruin = |moment: Option<DateTime>| moment.map_or(String::new(), |moment| dates.format(moment));
        for (index, fold) in self.folds.iter().enumerate() {
            let [first, last] = [fold.test.0, fold.test.1].map(|moment| dates.format(moment));
            let [from, to] = match fold.train {
                Some((from, to)) => [from, to].map(|moment| dates.format(moment)),
                None => Default::default(),
            };
            let (own, hold) = (figures(&fold.agents), figures(&fold.buy_and_hold));
            let ruin = ruin(fold.bankrupt_at);
            let _ = writeln!(text, "{},{from},{to},{first},{last},{own},{hold},{ruin}", index + 1);
        }
        let [first, last] = [self.whole.timestamps.first(), self.whole.timestamps.last()]
            .map(|moment| moment.map_or(String::new(), |moment| dates.format(*moment)));
        let (own, hold) = (figures(&self.whole.metrics), figures(&self.whole.benchmark));
        for (index, path) in self.paths.iter().enumerate() {
            let (own, ruin) = (figures(&path.metrics), ruin(path.bankrupt_at));
            let _ = writeln!(text, "path {},,,{first},{last},{own},{hold},{ruin}", index + 1);
        }
        let _ = writeln!(text, "all,,,{first},{last},{own},{hold},{}", ruin(self.whole.bankrupt_at));
        text
    }

    pub fn print(&self) {
        self.assessed.print_verdict();
        let dates = TimestampFormat::of(&self.whole.timestamps);
        let percent = |value: f64| format!("{:.2} %", value * 100.0);
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        let ruins = self.folds.iter().map(|fold| fold.bankrupt_at);
        let ruins = ruins.chain(self.paths.iter().map(|path| path.bankrupt_at));
        let ruins = ruins.chain(self.seeds.iter().map(|(.., bankrupt_at)| *bankrupt_at));
        let ruined = ruins.chain([self.whole.bankrupt_at]).flatten().next().is_some();
        let line = |name: &str, period: &str, own: (&Metrics, Option<DateTime>), hold: &Metrics| {
            let (own, bankrupt_at) = own;
            let ruin = bankrupt_at.map_or(String::new(), |moment| format!("  {}", dates.format(moment)));
            say!(
                "{name:<8}{period:<26}{:>12}{:>8}{:>12}{:>14}{:>8}{ruin}",
                percent(own.total_return),
                number(own.sharpe),
                percent(own.max_drawdown),
                percent(hold.total_return),
                number(hold.sharpe)
            );
        };
        say!(
            "{:<8}{:<26}{:>12}{:>8}{:>12}{:>14}{:>8}{}",
            "fold",
            "tested",
            "return",
            "Sharpe",
            "drawdown",
            "buy and hold",
            "Sharpe",
            if ruined { "  bankrupt" } else { "" }
        );
        for (index, fold) in self.folds.iter().enumerate() {
            let period = format!("{} to {}", dates.format(fold.test.0), dates.format(fold.test.1));
            line(&(index + 1).to_string(), &period, (&fold.agents, fold.bankrupt_at), &fold.buy_and_hold);
        }
        for (index, path) in self.paths.iter().enumerate() {
            let own = (&path.metrics, path.bankrupt_at);
            line("", &format!("path {} alone", index + 1), own, &self.whole.benchmark);
        }
        line("all", "", (&self.whole.metrics, self.whole.bankrupt_at), &self.whole.benchmark);
        if self.seeds.len() > 1 {
            for (seed, metrics, bankrupt_at) in &self.seeds {
                line("", &format!("seed {seed} alone"), (metrics, *bankrupt_at), &self.whole.benchmark);
            }
        }
        say!("Annualised with {}", self.whole.periods_per_year);
        self.assessed.print_evidence();
        if let Some(moment) = self.whole.bankrupt_at {
            say!(
                "The account went bankrupt at {} and stayed closed; every fold's own row starts with a new one.",
                dates.format(moment)
            );
        }
    }
}

fn info(jobs: &[Job], traded: &Traded) -> Result<RunInfo> {
    let (mut env_steps, mut seconds) = (0, 0.0);
    for job in jobs {
        let summary = Summary::read(&job.folder().summary())?;
        env_steps += summary.env_steps;
        seconds += summary.seconds;
    }
    let model = traded.policy.metadata();
    Ok(RunInfo {
        title: String::new(),
        seed: jobs.first().map_or(0, |job| job.settings.mappo.ppo.seed),
        adapter: crate::doctor::adapter(&traded.gpu),
        precision: format!("{:?}", model.network.precision).to_lowercase(),
        parameters: traded.policy.parameters(),
        env_steps,
        wall_time: Duration::from_secs_f64(seconds),
        training_period: None,
        known: false,
        version: model.version.clone(),
        folds: Vec::new(),
        audit: None,
        more: Vec::new(),
    })
}
