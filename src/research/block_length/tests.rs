use super::super::testing::{close_to, golden, normals, number, numbers};
use super::*;

/// arch has no lower bound.
#[test]
fn numbers_of_arch() {
    let cases = golden("block_length");
    assert_eq!(cases.as_array().unwrap().len(), 5);
    for case in cases.as_array().unwrap() {
        let length = automatic_block_length(&numbers(&case["returns"])).unwrap();
        close_to("block length", length, number(&case["arch"]).max(1.0), 1e-11);
    }
}

/// The optimum of an AR(1) process with coefficient phi is (2 phi / (1 - phi^2))^(2/3) T^(1/3).
#[test]
fn dependent_returns_have_long_blocks() {
    let mut series = normals(4, 20_000);
    assert!(automatic_block_length(&series).unwrap() < 6.0);
    for bar in 1..series.len() {
        series[bar] += 0.5 * series[bar - 1];
    }
    let optimum = (4.0f64 / 3.0).powf(2.0 / 3.0) * 20_000f64.cbrt();
    let length = automatic_block_length(&series).unwrap();
    assert!((length / optimum - 1.0).abs() < 0.2, "{length} {optimum}");
    let small: Vec<f64> = series.iter().map(|r| r * 1e-9).collect();
    close_to("scale", automatic_block_length(&small).unwrap(), length, 1e-8);
}

#[test]
fn bounds_and_errors() {
    let alternating: Vec<f64> = (0..16).map(|bar| f64::from(bar % 2)).collect();
    let trend: Vec<f64> = (0..100).map(f64::from).collect();
    assert!((1.0..=6.0).contains(&automatic_block_length(&alternating).unwrap()));
    assert!((10.0..=30.0).contains(&automatic_block_length(&trend).unwrap()));
    let mut spike = vec![0.0; 40];
    spike[39] = 1.0;
    assert!(automatic_block_length(&spike).unwrap() >= 1.0);
    let text = |returns: &[f64]| automatic_block_length(returns).unwrap_err().to_string();
    assert!(text(&[0.1; 15]).contains("fewer than 16 returns, got 15"));
    assert!(text(&[0.1; 16]).contains("zero variance"));
    assert!(text(&[f64::NAN; 16]).contains("bar 0 is NaN"));
    spike[39] = 1e300;
    assert!(text(&spike).contains("too large"));
}
