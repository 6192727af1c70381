//! Formulas of all figures, linked from the headings of their sections and back.

use maud::{Markup, html};

use super::format::UNDEFINED;

/// Anchor of the section, name, and paragraphs.
const DEFINITIONS: [(&str, &str, &[&str]); 12] = [
    (
        "account",
        "The account",
        &[
            "Equity: cash and positions at each close. It changes by Σ q (open′ − close) before and Σ q′ (close′ − open′) after the fills at the open, with the units q and q′, less commission, slippage and financing.",
            "Drawdown: equity / highest equity so far − 1. Positions: the target at each close as a part of the instrument’s share of the account.",
        ],
    ),
    (
        "metrics",
        "Metrics",
        &[
            "r are the simple returns per bar, without a risk-free rate, N their number, P the bars per year, Y the calendar years.",
            "Total return: last equity / first − 1. Annual return: (last equity / first)^(1/Y) − 1. Annual volatility: std(r) √P, with N − 1 in the denominator. Sharpe ratio: mean(r) / std(r) · √P; its standard error: √((1 + s²/2) P / N), with the ratio s of a bar (Lo 2002). Sortino ratio: mean(r) / √(Σ min(r, 0)² / N) · √P. Calmar ratio: annual return / |maximum drawdown|.",
            "Max drawdown: the lowest drawdown; its longest: most consecutive bars below an earlier maximum. Winning bars: bars with r > 0 / bars with r ≠ 0. Turnover: mean of traded value / mean gross position value at the last two closes. Time invested: fraction of bars with a position, averaged over the instruments.",
        ],
    ),
    (
        "luck",
        "Skill or luck",
        &[
            "p of a Sharpe difference: share of paired resamples whose difference is as far from the observed one as that is from zero. Other times: all positions shifted by a random number of bars; p = (1 + draws with a Sharpe ratio at least as high) / (1 + draws).",
            "Probabilistic Sharpe ratio: Φ[SR √(N − 1) / √(1 − skewness · SR + (kurtosis − 1) / 4 · SR²)], the probability that the true ratio is above zero; SR is the ratio of a bar. Deflated: the same with SR less the threshold in place of the first SR.",
            "Learnt: no baseline has a higher Sharpe ratio, the deflated Sharpe ratio is at least 0.95, and p at other times is at most 0.05.",
        ],
    ),
    (
        "bootstrap",
        "Resampled Sharpe ratios",
        &[
            "Stationary bootstrap (Politis and Romano 1994): the returns are drawn anew in blocks of random length, whose mean length is chosen from their autocorrelation. The 95 % interval is bias-corrected and accelerated, or, where that is undefined, from the 2.5 % to the 97.5 % quantile.",
            "Threshold: the highest ratio that T trials without skill are expected to reach, σ [(1 − γ) Φ⁻¹(1 − 1/T) + γ Φ⁻¹(1 − 1/(T e))] √P, with the deviation σ of the ratios of all trials on these bars and γ = 0.5772; 0 for one trial. Trials are counted in the ledger beside the runs.",
        ],
    ),
    (
        "audit",
        "Audit",
        &[
            "Later candles altered: prices and volumes after five bars are changed at random; no earlier feature, decision or reward may move by a bit; a reward is due one bar after its decision. Executed one bar later: every position is held a bar after its decision was due. Orders cost n bps: the same decisions with this commission, in place of commission, slippage and spread. History: the candles begin that many bars before those that the features need.",
            "Told the next return: trained again with ln(open(t + 2) / open(t + 1)) as a feature of bar t; wins with a Sharpe ratio above those of buy-and-hold and of no position, and p at other times of at most 0.05. Bars in random order: trained and traded on the bars before, within and after the traded ones, each in random order; wins with p of at most 0.05. Seeds: Sharpe ratios of trainings that differ in their seed only; deviation with N − 1 in the denominator.",
        ],
    ),
    (
        "months",
        "Returns by month",
        &[
            "Equity at the last close of the month / equity at the last close before it − 1; the year from its first to its last bar likewise. A bar belongs to the month of its timestamp.",
        ],
    ),
    (
        "rolling",
        "Rolling Sharpe ratio",
        &[
            "mean(r) / std(r) · √P over the last w returns. w is half a year of bars, at least 20 and at most half of all returns. No value where the returns of the window are all equal.",
        ],
    ),
    (
        "exposure",
        "Exposure",
        &[
            "Gross: Σ |units| · close / equity at each close. Net: Σ units · close / equity, long less short. Bars with a position: fraction of bars at whose close at least one instrument is held.",
        ],
    ),
    (
        "drawdowns",
        "Worst drawdowns",
        &[
            "From the last close at the maximum to the first close that reaches it again. Depth: lowest equity / maximum − 1. Bars: closes below the maximum.",
        ],
    ),
    (
        "holdings",
        "Holding times",
        &[
            "A position lasts from the fill that opens it to the one that closes or reverses it; fills in between make it larger or smaller. Its bars are counted from open to open, and up to the last close where it is still open. Winners: positions with a profit above zero, after commission, slippage, borrowing and funding.",
        ],
    ),
    (
        "attribution",
        "Profit by instrument",
        &[
            "Prices: Σ over bars of q (open′ − close) + q′ (close′ − open′). Profit: prices less commission, slippage, borrowing and funding. Contribution: profit / starting equity. Interest on cash belongs to no instrument. Instruments and interest add up to the profit of the account.",
        ],
    ),
    (
        "training",
        "Training",
        &[
            "Of every iteration, means over its rows with an active agent and over the epochs that changed the weights (Schulman et al. 2017, Yu et al. 2022). ρ: the probability of an action under the trained policy / under that of the rollout; A: normalised advantage; R and V: return and the critic’s value, both normalised; ε: clip ranges.",
            "Mean return: Σ rewards of an episode, averaged over agents and over the episodes that ended. Policy loss: −mean(min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)). Value loss: mean(max(h(R − V), h(R − Vᶜ))) with Vᶜ = V of the rollout + clip(V − V of the rollout, −ε, ε) and the Huber loss h. Explained variance: 1 − Var(R − V) / Var(R).",
            "Entropy: −Σ p ln p over the actions of a decision. Approximate KL: mean((ρ − 1) − ln ρ). Gradient norms: √Σ g² over all weights of a network at the iteration’s last update, the largest of the actors and of the critics. Loss scale: the factor on the loss in f16; halved after a gradient that is not finite, doubled after many that are.",
        ],
    ),
];

/// A heading with a link to the formula.
pub fn heading(anchor: &str, title: &str) -> Markup {
    html! { h2 id=(anchor) { (title) (link(anchor)) } }
}

/// A link to a formula.
pub fn link(anchor: &str) -> Markup {
    html! { " " a.formula href={ "#formula-" (anchor) } { "formula" } }
}

/// The formulas of the sections that the page has.
pub fn section(has: &dyn Fn(&str) -> bool) -> Markup {
    html! {
        section.definitions {
            h2 { "Definitions" }
            p.intro { "A dash (" (UNDEFINED) ") marks an undefined figure, such as a ratio with zero deviation." }
            @for (anchor, name, paragraphs) in DEFINITIONS.into_iter().filter(|it| has(it.0)) {
                h3 id={ "formula-" (anchor) } { (name) " " a.formula href={ "#" (anchor) } { "back" } }
                @for text in paragraphs {
                    p { (text) }
                }
            }
        }
    }
}
