use super::super::testing::{close_to, golden, matrix, number, numbers, sines};
use super::*;

/// The example of Bailey & Lopez de Prado (2014), which converts annual values with 250 days a year.
#[test]
fn example_of_the_paper() {
    let deviation = (0.5f64 / 250.0).sqrt();
    let skewed = SharpeEstimate::new(2.5 / 250f64.sqrt(), 1250, -3.0, 10.0).unwrap();
    let hundred = skewed.deflated(100.0, deviation).unwrap();
    close_to("SR0", hundred.expected_maximum, 0.11317200, 1e-7);
    close_to("N = 100", hundred.deflated, 0.90039683, 1e-8);
    close_to("N = 46", skewed.deflated(46.0, deviation).unwrap().deflated, 0.95050171, 1e-8);
    let normal = SharpeEstimate::new(2.5 / 250f64.sqrt(), 1250, 0.0, 3.0).unwrap();
    close_to("N = 88", normal.deflated(88.0, deviation).unwrap().deflated, 0.95049082, 1e-8);
}

#[test]
fn last_column_of_the_sines() {
    let returns = sines();
    let estimates: Vec<_> = returns
        .columns()
        .into_iter()
        .map(|column| SharpeEstimate::from_returns(&column.to_vec()).unwrap())
        .collect();
    let sharpes: Vec<f64> = estimates.iter().map(SharpeEstimate::sharpe).collect();
    let deflated = estimates[5].deflated_among(&sharpes).unwrap();
    close_to("SR", sharpes[5], 0.2025032408, 1e-9);
    close_to("PSR", deflated.probabilistic, 0.9120375939, 1e-9);
    close_to("DSR", deflated.deflated, 0.6528065105, 1e-9);
}

#[test]
fn numbers_of_holdout_and_scipy() {
    let cases = golden("sharpe");
    assert_eq!(cases.as_array().unwrap().len(), 3);
    for case in cases.as_array().unwrap() {
        let returns = numbers(&case["returns"]);
        let statistics = ReturnStatistics::new(&returns).unwrap();
        close_to("mean", statistics.mean, number(&case["mean"]), 1e-12);
        close_to("deviation", statistics.deviation, number(&case["deviation"]), 1e-12);
        close_to("sharpe", statistics.sharpe, number(&case["sharpe"]), 1e-12);
        close_to("skewness", statistics.skewness, number(&case["skewness"]), 1e-12);
        close_to("kurtosis", statistics.kurtosis, number(&case["kurtosis"]), 1e-12);
        let estimate = SharpeEstimate::from_returns(&returns).unwrap();
        for pair in case["psr"].as_array().unwrap() {
            close_to("PSR", estimate.probabilistic(number(&pair[0])).unwrap(), number(&pair[1]), 1e-12);
        }
        let length = estimate.minimum_track_record(-0.2, 0.95).unwrap();
        close_to("MinTRL", length, number(&case["minimum_track_record"]), 1e-12);
        for triple in case["dsr"].as_array().unwrap() {
            let deflated = estimate.deflated(number(&triple[0]), number(&triple[1])).unwrap();
            close_to("DSR", deflated.deflated, number(&triple[2]), 1e-12);
        }
    }
    let case = golden("overfitting");
    let returns = matrix(&case["returns"]);
    let estimates: Vec<_> = returns
        .columns()
        .into_iter()
        .map(|column| SharpeEstimate::from_returns(&column.to_vec()).unwrap())
        .collect();
    let sharpes: Vec<f64> = estimates.iter().map(SharpeEstimate::sharpe).collect();
    let selected = case["deflated"]["selected"].as_u64().unwrap() as usize;
    let deflated = estimates[selected].deflated_among(&sharpes).unwrap();
    close_to(
        "SR0 of a matrix",
        deflated.expected_maximum,
        number(&case["deflated"]["expected_maximum"]),
        1e-12,
    );
    close_to("DSR of a matrix", deflated.deflated, number(&case["deflated"]["deflated"]), 1e-12);
}

#[test]
fn the_track_record_reaches_its_confidence() {
    let estimate = SharpeEstimate::new(0.1, 500, -0.5, 5.0).unwrap();
    let bars = estimate.minimum_track_record(0.02, 0.99).unwrap().unwrap();
    let just =
        SharpeEstimate::new(0.1, bars.ceil() as usize, -0.5, 5.0).unwrap().probabilistic(0.02).unwrap();
    let short =
        SharpeEstimate::new(0.1, bars.floor() as usize, -0.5, 5.0).unwrap().probabilistic(0.02).unwrap();
    assert!(short < 0.99 && (0.99..0.9905).contains(&just), "{short} {just}");
    assert_eq!(estimate.minimum_track_record(0.1, 0.95).unwrap(), None);
    assert_eq!(estimate.minimum_track_record(0.2, 0.95).unwrap(), None);
}

#[test]
fn one_trial_is_not_deflated() {
    let estimate = SharpeEstimate::new(0.1, 500, 0.0, 3.0).unwrap();
    let deflated = estimate.deflated_among(&[0.1]).unwrap();
    assert_eq!((deflated.expected_maximum, deflated.deflated), (0.0, deflated.probabilistic));
    // Trials that are all equal have no deviation.
    assert_eq!(estimate.deflated_among(&[0.1; 8]).unwrap().deflated, deflated.probabilistic);
    assert_eq!(expected_maximum_sharpe(1.2, 0.5).unwrap(), 0.0);
}

#[test]
fn constant_returns_have_no_ratio() {
    let growth: Vec<f64> = (0..50).map(|bar| 1.01f64.powi(bar + 1) / 1.01f64.powi(bar) - 1.0).collect();
    for returns in [vec![0.0; 4], vec![0.01; 7], growth] {
        let statistics = ReturnStatistics::new(&returns).unwrap();
        assert_eq!((statistics.deviation, statistics.sharpe), (0.0, None));
        assert_eq!((statistics.skewness, statistics.kurtosis), (None, None));
        let error = SharpeEstimate::from_returns(&returns).unwrap_err();
        assert!(error.to_string().contains("zero variance"), "{error}");
    }
}

/// Returns with two values have the least kurtosis, 1 + skewness^2; with a ratio of 2 / skewness the estimate has no error.
#[test]
fn two_values() {
    for gains in 1..20 {
        let returns: Vec<f64> = (0..20).map(|bar| if bar < gains { 0.013 } else { -0.0071 }).collect();
        let estimate = SharpeEstimate::from_returns(&returns).unwrap();
        assert!((0.0..=1.0).contains(&estimate.probabilistic(0.0).unwrap()));
        SharpeEstimate::new(estimate.sharpe, 20, estimate.skewness, estimate.kurtosis).unwrap();
    }
    let exact = SharpeEstimate::new(1.0, 20, 2.0, 5.0).unwrap();
    let probabilities = [0.5, 1.0, 1.5].map(|benchmark| exact.probabilistic(benchmark).unwrap());
    assert_eq!(probabilities, [1.0, 0.5, 0.0]);
}

#[test]
fn errors_name_what_is_missing() {
    let text = |result: Result<ReturnStatistics>| result.unwrap_err().to_string();
    assert!(text(ReturnStatistics::new(&[])).contains("fewer than 2 returns, got 0"));
    assert!(text(ReturnStatistics::new(&[0.1])).contains("fewer than 2 returns, got 1"));
    assert!(text(ReturnStatistics::new(&[0.1, f64::NAN])).contains("bar 1 is NaN"));
    assert!(text(ReturnStatistics::new(&[f64::INFINITY, 0.1])).contains("bar 0 is inf"));
    assert!(text(ReturnStatistics::new(&[1e200, -1e200, 1e3])).contains("too large"));
    assert!(text(ReturnStatistics::new(&[f64::MAX, f64::MAX])).contains("too large"));
    let excess = SharpeEstimate::new(0.1, 100, -1.0, 0.5).unwrap_err().to_string();
    assert!(excess.contains("raw kurtosis"), "{excess}");
    for (sharpe, bars, skewness, kurtosis) in [
        (f64::NAN, 9, 0.0, 3.0),
        (0.1, 1, 0.0, 3.0),
        (0.1, 9, f64::INFINITY, 3.0),
        (0.1, 9, 0.0, f64::NAN),
        (1e200, 9, 0.0, 3.0),
        (1e308, 9, 1e10, 1e21),
    ] {
        SharpeEstimate::new(sharpe, bars, skewness, kurtosis).unwrap_err();
    }
    let estimate = SharpeEstimate::new(0.1, 100, 0.0, 3.0).unwrap();
    estimate.probabilistic(f64::NAN).unwrap_err();
    for confidence in [0.5, 1.0, f64::NAN] {
        estimate.minimum_track_record(0.0, confidence).unwrap_err();
    }
    for (trials, deviation) in
        [(0.0, 0.1), (f64::NAN, 0.1), (f64::INFINITY, 0.1), (5.0, -0.1), (5.0, f64::NAN), (1e300, f64::MAX)]
    {
        expected_maximum_sharpe(trials, deviation).unwrap_err();
    }
    let none = estimate.deflated_among(&[]).unwrap_err().to_string();
    assert!(none.contains("no trials"), "{none}");
    estimate.deflated_among(&[0.1, f64::NAN]).unwrap_err();
}
