//! The sections of the tear sheet: months, rolling Sharpe ratio, exposure, drawdowns, holding times, profit by instrument.

mod charts;

use anyhow::Result;
use maud::{Markup, PreEscaped, html};
use phalanx::backtest::{Attribution, Backtest, DrawdownPeriod, HoldingTimes, TearSheet, YearReturns};

use super::definitions::{heading, link};
use super::format::{UNDEFINED, moment, money, number, percent, signed_percent};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Most colour behind a number, in per cent: more would make it hard to read.
const MOST_COLOUR: f64 = 45.0;

pub fn sections(backtest: &Backtest) -> Result<Markup> {
    let sheet = TearSheet::new(backtest);
    Ok(html! {
        (months(backtest, &sheet.months))
        section {
            div.pair {
                (rolling(backtest, &sheet)?)
                (exposure(backtest, &sheet)?)
            }
        }
        (drawdowns(&sheet.drawdowns))
        (holdings(&sheet.holding_times))
        (attribution(&sheet.attribution, backtest.starting_equity))
    })
}

fn months(backtest: &Backtest, years: &[YearReturns]) -> Markup {
    let largest = years.iter().flat_map(|year| year.months).flatten().map(f64::abs).fold(0.0, f64::max);
    let cell = |value: Option<f64>| {
        let text = value.map_or(UNDEFINED.into(), |value| number(value * 100.0, 1));
        let colour =
            value.map_or(0.0, |value| (value.abs() / largest.max(f64::MIN_POSITIVE) * MOST_COLOUR).round());
        let class = if value.is_some_and(|value| value < 0.0) { "loss" } else { "gain" };
        html! { td class=(class) style={ "--colour:" (colour) "%" } { (text) } }
    };
    html! {
        section {
            (heading("months", "Returns by month"))
            p.intro {
                "In per cent, costs included."
                @if let Some(closed) = backtest.bankrupt_at {
                    " The account was closed on " (moment(closed)) ": later months have no return."
                }
            }
            div.wide tabindex="0" { table.months {
                thead { tr {
                        th scope="col" { "Year" }
                        @for month in MONTHS { th scope="col" { (month) } }
                        th scope="col" { "Total" } } }
                tbody {
                    @for year in years {
                        tr {
                            th scope="row" { (year.year) }
                            @for value in year.months { (cell(value)) }
                            td.total { (year.total.map_or(UNDEFINED.into(), |value| number(value * 100.0, 1))) }
                        }
                    }
                }
            } }
        }
    }
}

fn rolling(backtest: &Backtest, sheet: &TearSheet) -> Result<Markup> {
    let drawn = match &sheet.rolling_sharpe {
        Some(rolling) => charts::rolling(backtest, rolling)?.map(|svg| (rolling.window, svg)),
        None => None,
    };
    Ok(html! {
        figure id="rolling" {
            figcaption {
                strong { "Rolling Sharpe ratio" (link("rolling")) }
                @if let Some((window, _)) = drawn { "Over the last " (window) " returns, per year." }
            }
            @match &drawn {
                Some((_, svg)) => (PreEscaped(svg)),
                None if sheet.rolling_sharpe.is_some() => div.empty { "The returns do not vary: no window has a Sharpe ratio." },
                None => div.empty {
                    "A rolling ratio takes at least 40 returns; this account has " (backtest.metrics.bars) "."
                },
            }
        }
    })
}

fn exposure(backtest: &Backtest, sheet: &TearSheet) -> Result<Markup> {
    let it = &sheet.exposure;
    Ok(html! {
        figure id="exposure" {
            figcaption {
                strong { "Exposure" (link("exposure")) }
                @if it.max_gross > 0.0 {
                    "Position values as parts of the equity. Gross " (percent(it.mean_gross)) " on average, at most " (percent(it.max_gross))
                    "; net " (percent(it.mean_net)) " on average, from " (percent(it.min_net)) " to " (percent(it.max_net))
                    "; a position at " (percent(it.invested)) " of the closes. "
                    div {
                        span.key { i.strategy {} "net" }
                        span.key { i.benchmark {} "gross" }
                    }
                }
            }
            @if it.max_gross > 0.0 {
                (PreEscaped(charts::exposure(backtest, it)?))
            } @else {
                div.empty { "No position was held at a close." }
            }
        }
    })
}

fn drawdowns(periods: &[DrawdownPeriod]) -> Markup {
    html! {
        section {
            (heading("drawdowns", "Worst drawdowns"))
            @if periods.is_empty() {
                p.intro { "The account never fell below an earlier maximum." }
            } @else {
                div.wide tabindex="0" { table {
                    thead { tr {
                            th scope="col" { "Peak" } th scope="col" { "Depth" } th scope="col" { "Trough" }
                            th scope="col" { "Recovered" } th scope="col" { "Bars" } } }
                    tbody {
                        @for it in periods {
                            tr {
                                th scope="row" { (moment(it.peak)) }
                                td { (percent(it.depth)) }
                                td { (moment(it.trough)) }
                                td { (it.recovered.map_or("not recovered".into(), moment)) }
                                td { (number(it.bars as f64, 0)) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn holdings(times: &HoldingTimes) -> Markup {
    let whole = |value: usize| number(value as f64, 0);
    let bars = |value: f64| number(value, 1);
    let facts = [
        ("Positions", Some(format!("{}, {} still open", whole(times.count), whole(times.open)))),
        ("Median, bars", times.median_bars.map(bars)),
        ("Mean, bars", times.mean_bars.map(bars)),
        ("Longest, bars", times.longest_bars.map(whole)),
        ("Winners", times.winners.map(percent)),
    ];
    html! {
        section {
            (heading("holdings", "Holding times"))
            @if times.count == 0 {
                p.intro { "No position was held." }
            } @else {
                dl.facts {
                    @for (name, value) in facts {
                        div { dt { (name) } dd { (value.unwrap_or_else(|| UNDEFINED.into())) } }
                    }
                }
            }
        }
    }
}

fn attribution(attribution: &Attribution, start: f64) -> Markup {
    let rows = &attribution.instruments;
    let borrowed = rows.iter().any(|row| row.parts.borrow != 0.0);
    let funded = rows.iter().any(|row| row.parts.funding != 0.0);
    let share = |amount: f64| signed_percent(amount / start);
    let blank = 3 + usize::from(borrowed) + usize::from(funded);
    html! {
        section {
            (heading("attribution", "Profit by instrument"))
            p.intro { "In account currency. The rows add up to the profit of the account." }
            div.wide tabindex="0" { table {
                thead { tr {
                        th scope="col" { "Instrument" } th scope="col" { "Profit" } th scope="col" { "Contribution" }
                        th scope="col" { "Prices" } th scope="col" { "Commission" } th scope="col" { "Slippage" }
                        @if borrowed { th scope="col" { "Borrowing" } }
                        @if funded { th scope="col" { "Funding" } } } }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (row.symbol) }
                            td { (money(row.profit)) } td { (signed_percent(row.contribution)) }
                            td { (money(row.parts.price)) }
                            td { (money(-row.parts.commission)) } td { (money(-row.parts.slippage)) }
                            @if borrowed { td { (money(-row.parts.borrow)) } }
                            @if funded { td { (money(-row.parts.funding)) } }
                        }
                    }
                    @if attribution.interest != 0.0 {
                        tr {
                            th scope="row" { "Interest on cash" }
                            td { (money(attribution.interest)) } td { (share(attribution.interest)) }
                            @for _ in 0..blank { td {} }
                        }
                    }
                    tr.sum {
                        th scope="row" { "Account" }
                        td { (money(attribution.profit)) } td { (share(attribution.profit)) }
                        @for _ in 0..blank { td {} }
                    }
                }
            } }
        }
    }
}
