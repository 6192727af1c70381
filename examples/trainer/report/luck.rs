//! The section on skill and luck: baselines, timing, the number of trials, and the resampled Sharpe ratios.

use anyhow::Result;
use maud::{Markup, PreEscaped, html};
use phalanx::backtest::Backtest;
use phalanx::research::{Assessment, DeflatedSharpe};

use super::axis;
use super::definitions::{heading, link};
use super::format::{self, UNDEFINED, percent, plain, signed_percent};
use super::plot::{Axes, Ink, draw};
use crate::assess::{trials, without_p};

/// Columns of the histogram.
const COLUMNS: usize = 48;

/// The evidence, or the reason why there is none.
pub fn section(backtest: &Backtest, assessment: Result<&Assessment, &str>) -> Result<Markup> {
    let title = heading("luck", "Skill or luck");
    Ok(match assessment {
        Ok(assessment) => html! {
            section {
                (title)
                p.intro { "Rules without learning on the same bars with the same costs, and the agents’ own positions at other times." }
                (baselines(backtest, assessment))
                @if let Some(sentence) = without_p(&assessment.baselines) { p.note { (sentence) } }
                (facts(backtest, assessment))
                (resampled(backtest, Some(assessment))?)
            }
        },
        Err(reason) => html! {
            section {
                (title)
                p.intro {
                    "This account is not judged, and not counted as a trial: " (reason)
                    ". A verdict takes at least 20 bars, none of which trained or chose the model."
                }
                (resampled(backtest, None)?)
            }
        },
    })
}

fn baselines(backtest: &Backtest, assessment: &Assessment) -> Markup {
    html! {
        div.wide tabindex="0" { table {
            thead { tr {
                    td {}
                    th scope="col" { "Return" } th scope="col" { "Sharpe ratio" } th scope="col" { "Max drawdown" }
                    th scope="col" { "p of the Sharpe difference" } } }
            tbody {
                tr {
                    th scope="row" { "Agents" }
                    td { (signed_percent(backtest.metrics.total_return)) } td { (plain(backtest.metrics.sharpe)) }
                    td { (percent(backtest.metrics.max_drawdown)) } td {}
                }
                @for it in &assessment.baselines {
                    tr {
                        th scope="row" { (it.baseline.name()) }
                        td { (signed_percent(it.metrics.total_return)) } td { (plain(it.metrics.sharpe)) }
                        td { (percent(it.metrics.max_drawdown)) }
                        td { (it.difference.as_ref().map_or(UNDEFINED.into(), |it| probability(it.p_value))) }
                    }
                }
            }
        } }
    }
}

fn probability(value: f64) -> String {
    format::number(value, 3)
}

fn facts(backtest: &Backtest, assessment: &Assessment) -> Markup {
    let annual = backtest.periods_per_year.value().sqrt();
    html! {
        dl.facts {
            @if let Some(interval) = &assessment.sharpe {
                @let [low, high] = interval.bca.unwrap_or(interval.percentile);
                div {
                    dt { "Sharpe ratio, 95 % interval" }
                    dd { (plain(Some(low * annual))) " to " (plain(Some(high * annual))) }
                }
            }
            div {
                dt { "The same positions at other times" }
                dd { "p = " (probability(assessment.timing.p_value)) " (" (assessment.timing.sharpe.len()) " draws)" }
            }
            @if let Some(deflated) = &assessment.deflated {
                div { dt { "Probabilistic Sharpe ratio" } dd { (probability(deflated.probabilistic)) } }
                div {
                    dt { "Deflated Sharpe ratio" }
                    dd { (probability(deflated.deflated)) " over " (trials(deflated.trials)) " on these bars" }
                }
            }
        }
    }
}

/// The resampled Sharpe ratios against the threshold of the deflated one.
fn resampled(backtest: &Backtest, assessment: Option<&Assessment>) -> Result<Markup> {
    let drawn = match assessment.zip(backtest.metrics.sharpe) {
        Some((it, sharpe)) => histogram(backtest, it, sharpe)?.map(|svg| (it, svg)),
        None => None,
    };
    Ok(html! {
        figure.single id="bootstrap" {
            figcaption {
                strong { "Resampled Sharpe ratios" (link("bootstrap")) }
                @if let Some((it, _)) = &drawn {
                    "How often each ratio came up in " (format::number(it.resampled.len() as f64, 0)) " resamples of the returns. "
                    (threshold(it.deflated.as_ref()))
                    div {
                        span.key { i.strategy {} "agents" }
                        @if it.deflated.is_some() { span.key { i.threshold {} "threshold" } }
                    }
                }
            }
            @match drawn {
                Some((_, svg)) => (PreEscaped(svg)),
                None => div.empty { (missing(backtest, assessment.is_some())) },
            }
        }
    })
}

/// The reason why nothing is drawn.
fn missing(backtest: &Backtest, judged: bool) -> &'static str {
    match () {
        () if !judged => "Only accounts that are judged are resampled.",
        () if backtest.metrics.sharpe.is_none() => {
            "The returns do not vary: there is no Sharpe ratio to resample."
        }
        () => "In too many resamples the returns do not vary: more bars with a position are needed.",
    }
}

fn threshold(deflated: Option<&DeflatedSharpe>) -> String {
    match deflated {
        None => String::new(),
        Some(it) if it.trials == 1.0 => {
            "This is the only trial on these bars, so the threshold is 0; every further one raises it.".into()
        }
        Some(it) => format!(
            "The threshold is the best that {} without skill are expected to reach.",
            trials(it.trials)
        ),
    }
}

fn histogram(backtest: &Backtest, assessment: &Assessment, sharpe: f64) -> Result<Option<String>> {
    let annual = backtest.periods_per_year.value().sqrt();
    let ratios: Vec<f64> = assessment.resampled.iter().map(|ratio| ratio * annual).collect();
    let (Some(low), Some(high)) = (ratios.first().copied(), ratios.last().copied()) else { return Ok(None) };
    let limit = assessment.deflated.map(|it| it.expected_maximum * annual);
    let Some(x) = axis::range([low, high, sharpe].into_iter().chain(limit)) else { return Ok(None) };
    let width = (high - low) / COLUMNS as f64;
    let mut counts = [0u32; COLUMNS];
    for ratio in &ratios {
        // A cast saturates: all are in the first column where they are equal.
        counts[(((ratio - low) / width) as usize).min(COLUMNS - 1)] += 1;
    }
    let most = f64::from(counts.into_iter().max().unwrap_or(1));
    let y = (0.0, most * 1.08);
    let axes = Axes {
        x,
        y,
        x_ticks: axis::numeric(x.0, x.1, 6, format::tick),
        y_ticks: axis::numeric(y.0, y.1, 4, format::tick),
        baseline: Some(0.0),
    };
    let label = format!(
        "Histogram of {} resampled Sharpe ratios, from {} to {}. The agents’ ratio is {}{}.",
        format::number(ratios.len() as f64, 0),
        format::number(low, 2),
        format::number(high, 2),
        format::number(sharpe, 2),
        limit.map_or(String::new(), |limit| format!(", the threshold {}", format::number(limit, 2)))
    );
    let svg = draw(super::charts::HEIGHT * 3 / 4, &axes, &label, |canvas| {
        for (column, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let left = low + column as f64 * width;
            canvas.column((left, left + width), f64::from(count), Ink::Benchmark, 0.5)?;
        }
        if let Some(limit) = limit {
            canvas.vertical(limit, Ink::Short)?;
        }
        canvas.vertical(sharpe, Ink::Strategy)
    })?;
    Ok(Some(svg))
}
