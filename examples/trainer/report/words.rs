//! The report's text: headline, verdict and caveats.

use phalanx::backtest::Backtest;

use super::RunInfo;
use super::format::{moment, money, number, percent, signed_percent};

/// Difference of total returns below which accounts are called level: 0.05 percentage points.
const LEVEL: f64 = 5e-4;

/// The headline: the agents' result against buy-and-hold.
pub fn headline(backtest: &Backtest) -> &'static str {
    let (own, hold) = (backtest.metrics.total_return, backtest.benchmark.total_return);
    if backtest.bankrupt_at.is_some() {
        "The account went bankrupt"
    } else if backtest.trades.is_empty() {
        "The agents never traded"
    } else if (own - hold).abs() < LEVEL {
        "Level with buy-and-hold"
    } else if own > hold {
        if own > 0.0 { "Ahead of buy-and-hold" } else { "A loss, but smaller than buy-and-hold’s" }
    } else if own > 0.0 {
        "A gain, but behind buy-and-hold"
    } else {
        "A loss, and behind buy-and-hold"
    }
}

/// Two or three sentences with the numbers behind the headline.
pub fn verdict(backtest: &Backtest) -> String {
    let (own, hold) = (&backtest.metrics, &backtest.benchmark);
    let end = |curve: &[f64]| money(curve.last().copied().unwrap_or(f64::NAN));
    let start = money(backtest.starting_equity);
    let bars = number(own.bars as f64, 0);
    let account = match backtest.bankrupt_at {
        Some(date) => format!(
            "The account of {start} fell to {} and was closed for good on {}.",
            end(&backtest.equity),
            moment(date)
        ),
        None if backtest.trades.is_empty() => {
            format!("In {bars} bars the agents placed no order, so the account stayed at {start}.")
        }
        None => format!(
            "In {bars} bars the agents turned {start} into {} ({}), costs included.",
            end(&backtest.equity),
            signed_percent(own.total_return)
        ),
    };
    let what = match &backtest.symbols[..] {
        [symbol] => symbol.clone(),
        symbols => format!("the same {} instruments in equal parts", symbols.len()),
    };
    let benchmark = format!(
        "Buying and holding {what} would have turned {start} into {} ({}).",
        end(&backtest.benchmark_equity),
        signed_percent(hold.total_return)
    );
    let gap = own.total_return - hold.total_return;
    let comparison = if gap.abs() < LEVEL {
        "The two ended level;".to_owned()
    } else {
        let points = number(gap.abs() * 100.0, 1);
        format!("The agents ended {points} percentage points {};", if gap > 0.0 { "ahead" } else { "behind" })
    };
    let (drawdown, other) = (percent(-own.max_drawdown), percent(-hold.max_drawdown));
    format!("{account} {benchmark} {comparison} their maximum drawdown was {drawdown}, against {other}.")
}

/// Whether the training saw the held-out period.
pub fn separation(backtest: &Backtest, run: &RunInfo) -> &'static str {
    match (run.training_period, backtest.timestamps.first()) {
        _ if run.known => "Warning: some bars of the held-out period trained or chose the model.",
        (Some((_, last)), Some(first)) if last < *first => {
            "The training data ended before the held-out period began."
        }
        (Some((begun, _)), Some(_)) if backtest.timestamps.last().is_some_and(|last| *last < begun) => {
            "The training data began after the held-out period had ended."
        }
        (Some(_), Some(_)) => "Training went on after the held-out period too, and saw none of its bars.",
        _ => "",
    }
}

/// The statistical caveat, with the standard error of the Sharpe ratio: sqrt((1 + s^2/2) / N) sqrt(P), where s is
/// the Sharpe ratio per bar, N the number of bars and P the bars per year (A. W. Lo, "The Statistics of Sharpe Ratios", 2002,
/// for independent returns).
pub fn caution(backtest: &Backtest, run: &RunInfo) -> String {
    let (years, periods_per_year) = (backtest.years, backtest.periods_per_year.value());
    let mut text = match run.folds.len() {
        0 => format!(
            "This is one held-out period of {} and one training run. Another seed or another period can reverse the \
             result, and performance in one held-out period proves little about the next.",
            span(years)
        ),
        folds => format!(
            "These are {folds} held-out periods, {} in all, each traded by agents trained before it. Other folds and seeds give \
             another result, and the next period is none of these.",
            span(years)
        ),
    };
    if let Some(sharpe) = backtest.metrics.sharpe {
        let bar = sharpe / periods_per_year.sqrt();
        let error = ((1.0 + bar * bar / 2.0) / backtest.metrics.bars as f64 * periods_per_year).sqrt();
        text += &format!(
            " With this many bars the standard error of a Sharpe ratio is about ±{}: the agents’ {} is hardly \
             distinguishable from any value between {} and {}.",
            number(error, 2),
            number(sharpe, 2),
            number(sharpe - 2.0 * error, 1),
            number(sharpe + 2.0 * error, 1)
        );
    }
    if years < 1.0 {
        text += " Annualised metrics extrapolate from less than a year.";
    }
    text
}

fn span(years: f64) -> String {
    let (value, unit) = match years {
        years if years >= 1.0 => (years, "years"),
        years if years * 12.0 >= 1.0 => (years * 12.0, "months"),
        years => (years * 365.25, "days"),
    };
    format!("{} {unit}", number(value, 1))
}
