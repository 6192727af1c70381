//! Statistics of a series of simple returns, to be resampled.

use super::checks;

/// Sharpe ratio of a bar, mean / standard deviation with ddof 1, of simple `returns`, `[bar]`. `None` for fewer than two
/// returns, without variance, and for returns that are not finite.
#[must_use]
pub fn sharpe_ratio(returns: &[f64]) -> Option<f64> {
    let count = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / count;
    let deviation = (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    (returns.len() > 1 && deviation.is_finite() && !checks::is_constant(deviation, checks::peak(returns)))
        .then(|| mean / deviation)
}

/// Total return, prod(1 + r) - 1, of simple `returns`, `[bar]`. An account that falls to zero or below is closed: later
/// returns do not count. `None` without returns, and for returns that are not finite or overflow.
#[must_use]
pub fn total_return(returns: &[f64]) -> Option<f64> {
    let last = equity(returns).last()?;
    last.is_finite().then_some(last - 1.0)
}

/// Maximum drawdown, min(E / running maximum of E) - 1, of simple `returns`, `[bar]`, with the starting equity: 0 or negative.
/// An account that falls to zero or below is closed. It depends on the order of the bars, which resamples mix: its intervals
/// are rough. `None` without returns, and for returns that are not finite or overflow.
#[must_use]
pub fn max_drawdown(returns: &[f64]) -> Option<f64> {
    let (mut highest, mut lowest) = (1.0, 0.0);
    for equity in equity(returns) {
        if !equity.is_finite() {
            return None;
        }
        highest = f64::max(highest, equity);
        lowest = f64::min(lowest, equity / highest - 1.0);
    }
    (!returns.is_empty()).then_some(lowest)
}

/// Equity after each bar, from a start of 1, up to the bar at which the account is closed or no longer finite.
fn equity(returns: &[f64]) -> impl Iterator<Item = f64> {
    let mut equity = 1.0;
    returns.iter().map_while(move |r| {
        if !(equity > 0.0 && f64::is_finite(equity)) {
            return None;
        }
        equity *= 1.0 + r;
        Some(equity)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let returns = [0.1, -0.2, 0.25];
        assert!((sharpe_ratio(&returns).unwrap() - 0.05 / 0.0525_f64.sqrt()).abs() < 1e-15);
        assert!((total_return(&returns).unwrap() - 0.1).abs() < 1e-15);
        assert!((max_drawdown(&returns).unwrap() + 0.2).abs() < 1e-15);
        assert_eq!(max_drawdown(&[0.1, 0.2]), Some(0.0));
        assert_eq!(max_drawdown(&[-0.5, 0.2]), Some(-0.5));
    }

    #[test]
    fn a_lost_account_stays_closed() {
        assert_eq!((total_return(&[-1.0, 5.0]), max_drawdown(&[-1.0, 5.0])), (Some(-1.0), Some(-1.0)));
        assert_eq!((total_return(&[-1.5, 5.0]), max_drawdown(&[-1.5, 5.0])), (Some(-1.5), Some(-1.5)));
    }

    #[test]
    fn undefined_values() {
        for statistic in [sharpe_ratio, total_return, max_drawdown] {
            for returns in
                [&[][..], &[f64::NAN, 0.1], &[0.1, f64::INFINITY], &[f64::NEG_INFINITY], &[1e308, 1e308]]
            {
                assert_eq!(statistic(returns), None, "{returns:?}");
            }
        }
        assert_eq!((sharpe_ratio(&[0.1]), sharpe_ratio(&[0.1; 5])), (None, None));
    }
}
