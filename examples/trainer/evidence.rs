//! The verdict, its evidence, folds and the account in sample, as `metrics.json` has them.

use jiff::civil::DateTime;
use phalanx::backtest::{Backtest, Metrics};
use phalanx::market::TimestampFormat;
use phalanx::research::{Assessment, Comparison};
use serde::Serialize;

use crate::assess::verdict;
use crate::audit::Record;
use crate::report::FoldRow;

/// Fields of `metrics.json` that only the trainer knows. What is undefined is `null`. Sharpe ratios are per year.
#[derive(Serialize)]
pub struct Evidence {
    /// Learnt, not proven, beaten by a baseline; none where the account is not judged.
    verdict: Option<String>,
    /// The reason where there is no verdict.
    no_verdict_because: Option<String>,
    sharpe_interval: Option<Interval>,
    probabilistic_sharpe: Option<f64>,
    deflated_sharpe: Option<f64>,
    /// Sharpe ratio that the best of so many trials without skill is expected to reach.
    deflated_threshold: Option<f64>,
    trials: Option<f64>,
    timing: Option<Timing>,
    baselines: Vec<Baseline>,
    in_sample: Option<InSample>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    folds: Vec<Fold>,
    /// The account of each path of a walk, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Path>,
    /// The latest audit of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Record>,
}

#[derive(Serialize)]
struct Interval {
    level: f64,
    low: f64,
    high: f64,
    method: &'static str,
    resamples: usize,
    block_length_bars: f64,
}

#[derive(Serialize)]
struct Timing {
    p_value: f64,
    draws: usize,
    /// Draws that the device traded in f32; all others are f64.
    on_device: usize,
}

#[derive(Serialize)]
struct Baseline {
    name: &'static str,
    total_return: f64,
    sharpe: Option<f64>,
    max_drawdown: f64,
    /// Of the difference of the Sharpe ratios.
    p_value: Option<f64>,
}

/// The account on the bars that the agents were trained on.
#[derive(Serialize)]
struct InSample {
    from: String,
    to: String,
    strategy: Metrics,
    buy_and_hold: Metrics,
}

#[derive(Serialize)]
struct Fold {
    /// `null` where several folds trade a part.
    train_from: Option<String>,
    train_to: Option<String>,
    test_from: String,
    test_to: String,
    strategy: Metrics,
    buy_and_hold: Metrics,
    /// Time at which the account of the fold was closed for good; `null` if it was not.
    bankrupt_at: Option<String>,
}

/// The account of a path of a walk.
#[derive(Serialize)]
pub struct Path {
    #[serde(flatten)]
    metrics: Metrics,
    /// As that of a fold.
    bankrupt_at: Option<String>,
}

impl Path {
    /// With a date in the form of those of `timestamps`.
    pub fn new(metrics: Metrics, bankrupt_at: Option<DateTime>, timestamps: &[DateTime]) -> Self {
        let dates = TimestampFormat::of(timestamps);
        Self { metrics, bankrupt_at: bankrupt_at.map(|moment| dates.format(moment)) }
    }
}

impl Evidence {
    pub fn new(
        backtest: &Backtest,
        assessment: Result<&Assessment, &str>,
        in_sample: Option<&Backtest>,
        folds: &[FoldRow],
    ) -> Self {
        let dates = TimestampFormat::of(&backtest.timestamps);
        let known = assessment.ok();
        let deflated = known.and_then(|it| it.deflated);
        let annual = backtest.periods_per_year.value().sqrt();
        Self {
            verdict: known.map(|it| verdict(&it.verdict)),
            no_verdict_because: assessment.err().map(String::from),
            sharpe_interval: known.and_then(|it| interval(it, annual)),
            probabilistic_sharpe: deflated.map(|it| it.probabilistic),
            deflated_sharpe: deflated.map(|it| it.deflated),
            deflated_threshold: deflated.map(|it| it.expected_maximum * annual),
            trials: deflated.map(|it| it.trials),
            timing: known.map(|Assessment { timing, .. }| Timing {
                p_value: timing.p_value,
                draws: timing.sharpe.len(),
                on_device: timing.on_device,
            }),
            baselines: known.map_or(Vec::new(), |it| it.baselines.iter().map(baseline).collect()),
            in_sample: in_sample.and_then(|it| {
                Some(InSample {
                    from: dates.format(*it.timestamps.first()?),
                    to: dates.format(*it.timestamps.last()?),
                    strategy: it.metrics,
                    buy_and_hold: it.benchmark,
                })
            }),
            folds: folds
                .iter()
                .map(|fold| Fold {
                    train_from: fold.train.map(|(from, _)| dates.format(from)),
                    train_to: fold.train.map(|(_, to)| dates.format(to)),
                    test_from: dates.format(fold.test.0),
                    test_to: dates.format(fold.test.1),
                    strategy: fold.agents,
                    buy_and_hold: fold.buy_and_hold,
                    bankrupt_at: fold.bankrupt_at.map(|moment| dates.format(moment)),
                })
                .collect(),
            paths: Vec::new(),
            audit: None,
        }
    }
}

fn interval(assessment: &Assessment, annual: f64) -> Option<Interval> {
    let it = assessment.sharpe.as_ref()?;
    let ([low, high], method) = match it.bca {
        Some(ends) => (ends, "bias-corrected and accelerated"),
        None => (it.percentile, "percentile"),
    };
    Some(Interval {
        level: it.level,
        low: low * annual,
        high: high * annual,
        method,
        resamples: it.resamples,
        block_length_bars: it.block_length,
    })
}

fn baseline(of: &Comparison) -> Baseline {
    Baseline {
        name: of.baseline.name(),
        total_return: of.metrics.total_return,
        sharpe: of.metrics.sharpe,
        max_drawdown: of.metrics.max_drawdown,
        p_value: of.difference.as_ref().map(|it| it.p_value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_not_judged_has_nulls_and_the_reason() {
        let backtest = crate::report::tests::backtest(&["AAA"], 10, |_, _| 1.0);
        let evidence = Evidence::new(&backtest, Err("fewer than 20 bars"), None, &[]);
        let json = serde_json::to_value(evidence).unwrap();
        assert_eq!(json["no_verdict_because"], "fewer than 20 bars");
        let nulls = [
            "verdict",
            "sharpe_interval",
            "probabilistic_sharpe",
            "deflated_sharpe",
            "deflated_threshold",
            "trials",
            "timing",
            "in_sample",
        ];
        for key in nulls {
            assert!(json.as_object().unwrap().contains_key(key) && json[key].is_null(), "{key}");
        }
        assert!(json["baselines"].as_array().unwrap().is_empty() && json.get("folds").is_none());
    }

    #[test]
    fn ratios_are_per_year() {
        let (backtest, assessment) = crate::report::tests::judged(400);
        let json = serde_json::to_value(Evidence::new(&backtest, Ok(&assessment), None, &[])).unwrap();
        let annual = 252f64.sqrt();
        let interval = assessment.sharpe.unwrap();
        let [low, _] = interval.bca.unwrap_or(interval.percentile);
        assert!((json["sharpe_interval"]["low"].as_f64().unwrap() - low * annual).abs() < 1e-12);
        assert_eq!(json["trials"], 7.0);
        let timing = &json["timing"];
        assert_eq!((timing["draws"].as_u64(), timing["on_device"].as_u64()), (Some(10), Some(0)));
        assert_eq!(timing["p_value"], assessment.timing.p_value);
        let threshold = assessment.deflated.unwrap().expected_maximum * annual;
        assert!((json["deflated_threshold"].as_f64().unwrap() - threshold).abs() < 1e-12);
        assert_eq!(json["baselines"][0]["name"], "buy and hold");
        assert_eq!(json["verdict"], verdict(&assessment.verdict));
    }
}
