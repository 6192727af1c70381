//! The HTML page of the report.

use anyhow::Result;
use jiff::civil::DateTime;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use phalanx::backtest::{Backtest, Metrics};
use phalanx::env::ledger::{Costs, Financing};
use phalanx::research::Assessment;

use super::definitions::{self, heading, link};
use super::format::{UNDEFINED, duration, moment, money, number, percent, plain, signed_percent};
use super::{FoldRow, RunInfo, TrainingCurves, audits, charts, luck, plot, tearsheet, words};
use crate::assess::verdict;

const STYLE: &str = include_str!("style.css");

pub fn page(
    backtest: &Backtest,
    in_sample: Option<&Backtest>,
    assessment: Result<&Assessment, &str>,
    training: &TrainingCurves,
    run: &RunInfo,
) -> Result<Markup> {
    let verdict = assessment.ok().map(|it| capitalised(&verdict(&it.verdict)));
    let title = verdict.clone().unwrap_or_else(|| words::headline(backtest).into());
    let body = html! {
        header {
            p.eyebrow { (run.title) " · held-out backtest, " (period(backtest)) }
            h1 { (title) }
            p.lede {
                @if verdict.is_some() { strong { (words::headline(backtest)) ". " } }
                (words::verdict(backtest))
            }
            (tiles(&backtest.metrics, &backtest.benchmark))
        }
        main {
            section.columns {
                div.account { (account(backtest)?) }
                div { (figures(&backtest.metrics, &backtest.benchmark)) }
            }
            (luck::section(backtest, assessment)?)
            @if !run.folds.is_empty() {
                (folds(&run.folds))
            }
            @if let Some(audit) = &run.audit {
                (audits::section(audit))
            }
            @if let Some(in_sample) = in_sample {
                (comparison(in_sample, backtest))
            }
            (tearsheet::sections(backtest)?)
            @if run.folds.is_empty() {
                (curves(backtest, training, run)?)
            }
            section {
                h2 { "The run" }
                (facts(backtest, run))
            }
            (definitions::section(&|anchor| match anchor {
                "audit" => run.audit.is_some(),
                "training" => run.folds.is_empty() && !training.curves.is_empty(),
                _ => true,
            }))
        }
        footer {
            p.note { (words::caution(backtest, run)) }
        }
    };
    Ok(document(&format!("{} – {title}", run.title), &body))
}

/// A whole page, without scripts or network access.
pub fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(plot::colour_rules())) }
            }
            body { (body) }
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn tiles(own: &Metrics, hold: &Metrics) -> Markup {
    let tiles = [
        ("Total return", signed_percent(own.total_return), signed_percent(hold.total_return)),
        ("Sharpe ratio", plain(own.sharpe), plain(hold.sharpe)),
        ("Max drawdown", percent(own.max_drawdown), percent(hold.max_drawdown)),
        ("Trades", number(own.trades as f64, 0), number(hold.trades as f64, 0)),
    ];
    html! {
        dl.tiles {
            @for (name, own, hold) in tiles {
                div {
                    dt { (name) }
                    dd.value { (own) }
                    dd.other { "buy-and-hold " (hold) }
                }
            }
        }
    }
}

fn account(backtest: &Backtest) -> Result<Markup> {
    Ok(html! {
        (heading("account", "The account"))
        p.intro { "Orders are placed after a bar’s close and filled at the next open, with commission and slippage." }
        figure {
            figcaption { strong { "Equity" } (lines()) }
            (PreEscaped(charts::equity(backtest)?))
        }
        figure {
            figcaption { strong { "Drawdown" } "Distance from the previous peak. " (lines()) }
            (PreEscaped(charts::drawdown(backtest)?))
        }
        figure {
            figcaption {
                strong { "Positions" }
                "Positions at each close, long above the centre line and short below, with the fraction of bars. "
                div {
                    span.key { i.box.long {} "long" }
                    span.key { i.box.short {} "short" }
                    span.key { i.box.flat {} "flat" }
                }
            }
            (PreEscaped(charts::positions(backtest)?))
        }
    })
}

fn lines() -> Markup {
    html! {
        div {
            span.key { i.strategy {} "agents" }
            span.key { i.benchmark {} "buy-and-hold" }
        }
    }
}

/// Formats one metric of an account.
type Show<'a> = &'a dyn Fn(&Metrics) -> String;

fn figures(own: &Metrics, hold: &Metrics) -> Markup {
    let share = |value: Option<f64>| value.map_or(UNDEFINED.into(), percent);
    let growth = |value: Option<f64>| value.map_or(UNDEFINED.into(), signed_percent);
    let whole = |value: usize| number(value as f64, 0);
    let rows: [(&str, Show); 14] = [
        ("Total return", &|m| signed_percent(m.total_return)),
        ("Annual return", &|m| growth(m.cagr)),
        ("Annual volatility", &|m| share(m.volatility)),
        ("Sharpe ratio", &|m| plain(m.sharpe)),
        ("Sortino ratio", &|m| plain(m.sortino)),
        ("Max drawdown", &|m| percent(m.max_drawdown)),
        ("Longest drawdown, bars", &|m| whole(m.max_drawdown_bars)),
        ("Calmar ratio", &|m| plain(m.calmar)),
        ("Winning bars", &|m| share(m.win_rate)),
        ("Turnover per bar", &|m| share(m.turnover)),
        ("Time invested", &|m| percent(m.exposure)),
        ("Trades", &|m| whole(m.trades)),
        ("Commission", &|m| money(m.commission)),
        ("Slippage", &|m| money(m.slippage)),
    ];
    html! {
        (heading("metrics", "Metrics"))
        p.intro { "Both accounts paid the same costs on the same " (whole(own.bars)) " bars." }
        table {
            thead { tr {
                    td {} th scope="col" { "Agents" } th scope="col" { "Buy-and-hold" } } }
            tbody {
                @for (name, show) in rows {
                    tr { th scope="row" { (name) } td { (show(own)) } td { (show(hold)) } }
                }
            }
        }
    }
}

/// The policy on the bars that it was trained on, beside the held-out ones.
fn comparison(in_sample: &Backtest, backtest: &Backtest) -> Markup {
    let growth = |value: Option<f64>| value.map_or(UNDEFINED.into(), signed_percent);
    let rows: [(&str, Show); 4] = [
        ("Total return", &|m| signed_percent(m.total_return)),
        ("Annual return", &|m| growth(m.cagr)),
        ("Sharpe ratio", &|m| plain(m.sharpe)),
        ("Max drawdown", &|m| percent(m.max_drawdown)),
    ];
    html! {
        section {
            h2 { "In sample and out of sample" (link("metrics")) }
            p.intro {
                "The same policy on the bars it was trained on, " (period(in_sample)) ", and on the held-out ones, with the same costs. "
                "Returns earned only in sample are overfitting."
            }
            div.wide tabindex="0" { table {
                thead { tr {
                        td {}
                        th scope="col" { "Agents, in sample" } th scope="col" { "Buy-and-hold, in sample" }
                        th scope="col" { "Agents, out of sample" } th scope="col" { "Buy-and-hold, out of sample" } } }
                tbody {
                    @for (name, show) in rows {
                        tr {
                            th scope="row" { (name) }
                            @for account in [in_sample, backtest] {
                                td { (show(&account.metrics)) } td { (show(&account.benchmark)) }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// The test parts of a walk, each traded by agents that had not seen it.
fn folds(folds: &[FoldRow]) -> Markup {
    let ruined = folds.iter().any(|fold| fold.bankrupt_at.is_some());
    html! {
        section {
            h2 { "Folds" (link("metrics")) }
            p.intro {
                "Every row is traded by agents that had seen none of its bars. Its account starts anew, "
                "without positions; the account above carries them from row to row."
            }
            div.wide tabindex="0" { table {
                thead { tr {
                        th scope="col" { "Tested" }
                        th scope="col" { "Return" } th scope="col" { "Sharpe ratio" } th scope="col" { "Max drawdown" }
                        @if ruined { th scope="col" { "Bankrupt" } }
                        th scope="col" { "Buy-and-hold" } th scope="col" { "Its Sharpe ratio" }
                        th scope="col" { "Trained on" } } }
                tbody {
                    @for fold in folds {
                        tr {
                            th scope="row" { (between(fold.test.0, fold.test.1)) }
                            td { (signed_percent(fold.agents.total_return)) } td { (plain(fold.agents.sharpe)) }
                            td { (percent(fold.agents.max_drawdown)) }
                            @if ruined { td { (fold.bankrupt_at.map_or(UNDEFINED.into(), moment)) } }
                            td { (signed_percent(fold.buy_and_hold.total_return)) } td { (plain(fold.buy_and_hold.sharpe)) }
                            td { (fold.train.map_or("other parts, before and after".into(), |(from, to)| between(from, to))) }
                        }
                    }
                }
            } }
        }
    }
}

fn curves(backtest: &Backtest, training: &TrainingCurves, run: &RunInfo) -> Result<Markup> {
    let mut figures = Vec::new();
    for (name, caption, values) in &training.curves {
        figures.push((name, caption, charts::training(&training.env_steps, name, values)?));
    }
    Ok(html! {
        section {
            @if figures.is_empty() {
                h2 { "Training" }
                p.intro { "No training curves were recorded." }
            } @else {
                (heading("training", "Training"))
                p.intro { "Over environment steps. " (words::separation(backtest, run)) }
            }
            div.curves {
                @for (name, caption, svg) in figures {
                    figure {
                        figcaption { strong { (name) } (caption) }
                        @match svg {
                            Some(svg) => (PreEscaped(svg)),
                            None => div.empty { "This curve has no finite value." },
                        }
                    }
                }
            }
        }
    })
}

fn facts(backtest: &Backtest, run: &RunInfo) -> Markup {
    let count = |value: u64| number(value as f64, 0);
    let costs = costs(&backtest.costs, &backtest.symbols);
    let periods = backtest.periods_per_year;
    let mut facts = vec![
        ("Instruments", backtest.symbols.join(", ")),
        ("Held-out period", period(backtest)),
        ("Costs", costs),
        ("Bars per year", format!("{} ({})", number(periods.value(), 0), periods.reason())),
        ("Seed", run.seed.to_string()),
        ("Adapter", run.adapter.clone()),
        ("Precision", run.precision.clone()),
        ("Parameters", count(run.parameters)),
        ("Environment steps", count(run.env_steps)),
        ("Wall time", duration(run.wall_time)),
        ("phalanx", run.version.clone()),
    ];
    if let Some((first, last)) = run.training_period {
        facts.insert(1, ("Training period", between(first, last)));
    }
    let financing =
        [("Financing", backtest.financing), ("Financing, buy-and-hold", backtest.benchmark_financing)];
    let paid = financing.into_iter().filter(|(_, it)| *it != Financing::default());
    facts.extend(paid.map(|(name, it)| {
        let text = format!(
            "interest {}, borrowing {}, funding {}",
            money(it.interest),
            money(-it.borrow),
            money(-it.funding)
        );
        (name, text)
    }));
    facts.extend(run.more.iter().map(|(name, value)| (name.as_str(), value.clone())));
    html! {
        dl.facts {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// The costs that are not 0, commission and slippage always.
fn costs(costs: &Costs, symbols: &[String]) -> String {
    let mut texts = vec![format!("commission {} bps", costs.commission_bps)];
    let mut add = |value: f64, text: String| {
        if value != 0.0 {
            texts.push(text);
        }
    };
    add(costs.commission_per_unit, format!("{} per unit", costs.commission_per_unit));
    add(costs.min_commission, format!("at least {}", costs.min_commission));
    add(1.0, format!("slippage {} bps", costs.slippage_bps));
    for (symbol, spread) in symbols.iter().zip(&costs.spread_bps) {
        add(*spread, format!("spread of {symbol} {spread} bps"));
    }
    for (name, rate) in
        [("borrowing", costs.borrow_rate), ("cash", costs.cash_rate), ("borrowed cash", costs.margin_rate)]
    {
        add(rate, format!("{name} {} a year", percent(rate)));
    }
    texts.join(", ")
}

fn period(backtest: &Backtest) -> String {
    match (backtest.timestamps.first(), backtest.timestamps.last()) {
        (Some(first), Some(last)) => between(*first, *last),
        _ => UNDEFINED.into(),
    }
}

fn between(first: DateTime, last: DateTime) -> String {
    format!("{} to {}", moment(first), moment(last))
}
