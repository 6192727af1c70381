use ndarray::{Array2, Axis};

use super::super::sharpe_ratio;
use super::super::testing::{close_to, golden, matrix, normals, number, numbers, sines};
use super::*;

#[test]
fn sines_with_eight_blocks() {
    let overfitting = probability_of_overfitting(sines().view(), 8, Measure::Sharpe).unwrap();
    assert_eq!((overfitting.logits.len(), overfitting.trials, overfitting.bars), (70, 6, 48));
    assert_eq!(overfitting.probability, 11.0 / 70.0);
}

/// 53 bars do not divide by 8.
#[test]
fn numbers_of_holdout() {
    let case = golden("overfitting");
    let returns = matrix(&case["returns"]);
    for (name, measure) in [("sharpe", Measure::Sharpe), ("mean", Measure::Mean)] {
        let want = &case["results"][name];
        let got = probability_of_overfitting(returns.view(), 8, measure).unwrap();
        close_to("PBO", got.probability, number(&want["probability"]), 1e-15);
        close_to("loss", got.probability_of_loss, number(&want["probability_of_loss"]), 1e-15);
        let line = got.degradation.unwrap();
        close_to("slope", line.slope, number(&want["slope"]), 1e-10);
        close_to("intercept", line.intercept, number(&want["intercept"]), 1e-10);
        close_to("r squared", line.r_squared, number(&want["r_squared"]), 1e-10);
        let selected: Vec<f64> = got.selected.iter().map(|trial| *trial as f64).collect();
        assert_eq!(selected, numbers(&want["selected"]));
        for (got, want) in got.logits.iter().zip(numbers(&want["logits"])) {
            assert!((got - want).abs() < 1e-11, "{got} {want}");
        }
    }
}

/// Block sums give the same as the bars themselves, also where the mean is a million times the deviation.
#[test]
fn measures_of_halves() {
    for level in [0.0, 1e4] {
        let values = normals(3, 41 * 4);
        let returns = Array2::from_shape_fn((41, 4), |(bar, trial)| level + 0.01 * values[bar * 4 + trial]);
        let moments = BlockMoments::new(returns.view(), 4);
        // Blocks of 11, 10, 10 and 10 bars.
        let rows: Vec<usize> = (0..11).chain(21..31).collect();
        let (mut squares, mut measures) = (vec![0.0; 4], vec![0.0; 4]);
        moments.measure(&[0, 2], Measure::Sharpe, &mut squares, &mut measures).unwrap();
        for (column, got) in returns.select(Axis(0), &rows).columns().into_iter().zip(measures) {
            close_to("sharpe", got, sharpe_ratio(&column.to_vec()).unwrap(), 1e-8);
        }
    }
}

#[test]
fn splits_are_lexicographic() {
    let mut halves = Halves::first(4);
    let mut seen = vec![halves.sample.clone()];
    while halves.advance() {
        seen.push(halves.sample.clone());
    }
    assert_eq!(seen, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    assert_eq!(halves.rest(), [0, 1]);
}

#[test]
fn noise_is_overfitted_and_skill_is_not() {
    let values = normals(11, 800 * 20);
    let noise = Array2::from_shape_fn((800, 20), |(bar, trial)| 0.01 * values[bar * 20 + trial]);
    let overfitting = probability_of_overfitting(noise.view(), Overfitting::BLOCKS, Measure::Sharpe).unwrap();
    assert_eq!(overfitting.logits.len(), 12_870);
    assert!((0.2..0.9).contains(&overfitting.probability), "{}", overfitting.probability);
    let mut skilled = noise;
    skilled.column_mut(7).mapv_inplace(|r| r + 0.004);
    let overfitting =
        probability_of_overfitting(skilled.view(), Overfitting::BLOCKS, Measure::Sharpe).unwrap();
    assert_eq!((overfitting.probability, overfitting.probability_of_loss), (0.0, 0.0));
    assert!(overfitting.selected.iter().all(|trial| *trial == 7));
}

#[test]
fn equal_trials_share_the_median() {
    let column = normals(2, 64);
    let equal = Array2::from_shape_fn((64, 5), |(bar, _)| column[bar]);
    let overfitting = probability_of_overfitting(equal.view(), 8, Measure::Sharpe).unwrap();
    assert!(overfitting.logits.iter().all(|logit| *logit == 0.0));
    assert!(overfitting.selected.iter().all(|trial| *trial == 0));
    assert_eq!(overfitting.probability, 1.0);
    let flat = Array2::<f64>::zeros((64, 3));
    let overfitting = probability_of_overfitting(flat.view(), 8, Measure::Mean).unwrap();
    assert_eq!((overfitting.probability, overfitting.degradation), (1.0, None));
}

#[test]
fn errors_name_what_is_missing() {
    let text = |returns: &Array2<f64>, blocks| {
        probability_of_overfitting(returns.view(), blocks, Measure::Sharpe).unwrap_err().to_string()
    };
    let returns = sines();
    for blocks in [0, 1, 7, 24, usize::MAX] {
        assert!(text(&returns, blocks).contains("even number from 2 to 22"));
    }
    assert!(text(&returns.select(Axis(0), &[0]), 8).contains("fewer than 16 bars, got 1"));
    assert!(text(&Array2::zeros((0, 6)), 8).contains("fewer than 16 bars, got 0"));
    assert!(text(&Array2::zeros((48, 0)), 8).contains("fewer than 2 trials, got 0"));
    assert!(text(&Array2::zeros((48, 1)), 8).contains("fewer than 2 trials, got 1"));
    let mut broken = returns.clone();
    broken[[9, 2]] = f64::NAN;
    assert!(text(&broken, 8).contains("trial 2 is NaN at bar 9"));
    broken[[9, 2]] = f64::NEG_INFINITY;
    assert!(text(&broken, 8).contains("trial 2 is -inf at bar 9"));
    broken[[9, 2]] = 1e300;
    assert!(text(&broken, 8).contains("too large"));
    let mut late = returns.clone();
    late.slice_mut(ndarray::s![24.., 4]).fill(0.003);
    assert!(text(&late, 8).contains("trial 4 has zero variance over half of the bars"));
    probability_of_overfitting(late.view(), 8, Measure::Mean).unwrap();
}
