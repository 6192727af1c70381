//! Facts about the runs of a backtest, for its report.

use std::time::Duration;

use anyhow::Result;
use phalanx::market::Candles;

use crate::agents::{Agents, TrainedRun};
use crate::audit::Record;
use crate::report::RunInfo;
use crate::summary::Summary;

/// The facts of one run, or of all that decide together; `known` says whether some of the traded bars trained or chose a model.
pub fn info(agents: &Agents, candles: &Candles, known: bool, gaps: &[(&str, String)]) -> Result<RunInfo> {
    let (runs, first) = (agents.runs(), agents.first());
    let summaries =
        runs.iter().map(|run| Summary::read(&run.folder.summary())).collect::<Result<Vec<_>>>()?;
    let periods = runs.iter().map(|run| Ok(run.known()?.period(candles))).collect::<Result<Vec<_>>>()?;
    let [first_known, last_known] =
        [periods.iter().map(|(from, _)| *from).min(), periods.iter().map(|(_, to)| *to).max()];
    let of_all = |text: &dyn Fn(&TrainedRun) -> String| distinct(runs.iter().map(text));
    let market = agents.market()?;
    let seeds =
        runs.iter().map(|run| format!("{} (seed {})", run.folder.name(), run.settings.mappo.ppo.seed));
    let together = agents.several().then(|| {
        let all: Vec<_> = seeds.collect();
        ("Ensemble".to_string(), format!("{}: the mean of their logits decides", all.join(", ")))
    });
    // The training period goes around them.
    let between = first.known()?.between().iter();
    let between = between.map(|[from, to]| ("Held out".to_string(), format!("{from} to {to}")));
    let gaps = gaps.iter().map(|(name, text)| (format!("{name} bars"), text.clone()));
    Ok(RunInfo {
        title: match agents.several() {
            true => format!("Ensemble of {}", agents.names(", ")),
            false => agents.names(", "),
        },
        seed: first.settings.mappo.ppo.seed,
        adapter: distinct(summaries.iter().map(|summary| summary.adapter.clone())),
        precision: of_all(&|run| format!("{:?}", run.policy.metadata().network.precision).to_lowercase()),
        parameters: runs.iter().map(|run| run.policy.parameters()).sum(),
        env_steps: summaries.iter().map(|summary| summary.env_steps).sum(),
        wall_time: Duration::from_secs_f64(summaries.iter().map(|summary| summary.seconds).sum()),
        training_period: first_known.zip(last_known),
        known,
        version: of_all(&|run| run.policy.metadata().version.clone()),
        folds: Vec::new(),
        audit: if agents.several() { None } else { Record::of(&first.folder)? },
        more: together
            .into_iter()
            .chain([
                (
                    "Hidden layers".into(),
                    of_all(&|run| format!("{:?}", run.policy.metadata().network.hidden)),
                ),
                (
                    "Networks".into(),
                    of_all(&|run| format!("{:?}", run.policy.metadata().network.networks).to_lowercase()),
                ),
                ("Discount".into(), of_all(&|run| run.settings.mappo.ppo.gamma.to_string())),
                ("Shorting".into(), if market.settings.shorting { "allowed" } else { "not allowed" }.into()),
            ])
            .chain(between)
            .chain(gaps)
            .collect(),
    })
}

/// The texts that differ, in their order.
fn distinct(texts: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all.join(", ")
}
