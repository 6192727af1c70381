//! The HTML page of a comparison of runs.

use jiff::civil::DateTime;
use maud::{Markup, html};
use phalanx::research::PairedDifference;

use super::format::{UNDEFINED, moment, number, percent, signed_percent};
use super::page::document;
use crate::compare::{Compared, STATISTICS, missing};

/// Renders the page; the first of `runs` is the reference.
pub fn comparison_page(runs: &[Compared], timestamps: &[DateTime]) -> String {
    let period = match (timestamps.first(), timestamps.last()) {
        (Some(first), Some(last)) => format!("{} to {}", moment(*first), moment(*last)),
        _ => String::new(),
    };
    let reference = runs.first().map_or("", |first| &first.name);
    let body = html! {
        header {
            p.eyebrow { (number(timestamps.len() as f64, 0)) " bars, " (period) }
            h1 { (headline(runs)) }
            p.lede { "Differences from " (reference) ", on the same bars, with the same resamples of both." }
        }
        main {
            @for (index, (name, fraction, _)) in STATISTICS.iter().enumerate() {
                (table(runs, index, name, *fraction))
            }
            @if let Some(sentence) = runs.iter().enumerate().find_map(|(index, run)| missing(index, run)) {
                p.note { (sentence) }
            }
            details {
                summary { "Definitions" }
                p { "Intervals of 95 %: stationary bootstrap of the pairs of returns, bias-corrected and accelerated where that is defined. p: share of resamples whose difference is as far from the observed one as that is from zero. Adjusted: Holm’s step-down procedure over all runs." }
            }
        }
    };
    document(&format!("Comparison of {} runs", runs.len()), &body).into_string()
}

fn headline(runs: &[Compared]) -> &'static str {
    let differ = |run: &&Compared| run.adjusted.is_some_and(|p| p <= 0.05);
    match runs.iter().filter(differ).count() {
        0 => "No difference that chance does not explain",
        1 => "One run differs from the first",
        _ => "Several runs differ from the first",
    }
}

fn table(runs: &[Compared], index: usize, name: &str, fraction: bool) -> Markup {
    let show = |value: f64| if fraction { percent(value) } else { number(value, 4) };
    let signed = |value: f64| if fraction { signed_percent(value) } else { number(value, 4) };
    let interval = |it: &PairedDifference| {
        let [low, high] = it.difference.bca.unwrap_or(it.difference.percentile);
        format!("{} to {}", signed(low), signed(high))
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| UNDEFINED.into());
    html! {
        section {
            h2 { (name) }
            div.wide tabindex="0" { table {
                thead { tr {
                        th scope="col" { "Run" } th scope="col" { "Value" } th scope="col" { "Difference" }
                        th scope="col" { "95 % interval" } th scope="col" { "p" }
                        @if index == 0 { th scope="col" { "p, adjusted" } } } }
                tbody {
                    @for run in runs {
                        @let difference = run.differences[index].as_ref();
                        tr {
                            th scope="row" { (run.name) }
                            td { (or_dash(run.values[index].map(show))) }
                            td { (or_dash(difference.map(|it| signed(it.difference.value)))) }
                            td { (or_dash(difference.map(interval))) }
                            td { (or_dash(difference.map(|it| number(it.p_value, 3)))) }
                            @if index == 0 { td { (or_dash(run.adjusted.map(|p| number(p, 3)))) } }
                        }
                    }
                }
            } }
        }
    }
}
