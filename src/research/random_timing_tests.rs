use ndarray::{Array2, array};

use super::super::testing::{candles, options};
use super::*;
use crate::env::ledger::Costs;
use crate::testing::both_classes;

/// A random walk from 100 on.
fn walk(bars: usize, deviation: f64, seed: u64) -> Candles {
    let mut random = Stream::new(seed, 1);
    let mut level = 100.0;
    let prices: Vec<f64> = (0..bars)
        .map(|_| {
            level *= (deviation * random.normal()).exp();
            level
        })
        .collect();
    candles(1, bars, |_, bar| prices[bar])
}

/// -1, 0 or 1, at random.
fn guesses(rows: usize, seed: u64) -> Array2<f64> {
    let mut random = Stream::new(seed, 2);
    Array2::from_shape_fn((rows, 1), |_| (random.uniform() * 3.0).floor() - 1.0)
}

/// Positions that know the next bar are far beyond all draws; constant ones are equal to all. On the CPU and on the device.
#[test]
fn timing_that_knows_the_future_is_found_and_constant_positions_are_not() {
    let candles = walk(300, 0.01, 5);
    // Open and close are equal: an order after bar b fills at bar b + 1 and earns the change to b + 2.
    let knowing = Array2::from_shape_fn((299, 1), |(b, _)| {
        let rises = b < 298 && candles.close[[0, b + 2]] > candles.close[[0, b + 1]];
        if rises { 1.0 } else { -1.0 }
    });
    let gpus = both_classes();
    for gpu in [None, Some(&gpus[0]), Some(&gpus[1])] {
        let try_test = |bars: Range<usize>, targets: &Array2<f64>, draws, seed| match gpu {
            None => random_timing(&candles, &bars, targets.view(), &options(), draws, seed),
            Some(gpu) => {
                random_timing_on_device(gpu, &candles, &bars, targets.view(), &options(), draws, seed)
            }
        };
        let test = |targets: &Array2<f64>, draws, seed| try_test(0..300, targets, draws, seed).unwrap();
        let found = test(&knowing, 200, 1);
        assert_eq!((found.sharpe.len(), found.p_value), (200, 1.0 / 201.0));
        assert_eq!(found, test(&knowing, 200, 1), "a seed gives the same draws");
        assert_ne!(found.sharpe, test(&knowing, 200, 2).sharpe);
        assert_eq!(found.on_device, if gpu.is_some() { 200 - PROBES } else { 0 });
        // No more draws than shifts, each of them once.
        let all = test(&knowing, 10_000, 1);
        assert_eq!(all.sharpe.len(), 298);
        for constant in [Array2::ones((299, 1)), Array2::zeros((299, 1))] {
            let equal = test(&constant, 50, 1);
            assert_eq!((equal.p_value, equal.on_device, equal.sharpe.len()), (1.0, 0, 50));
        }

        let error =
            |bars, targets: &Array2<f64>, draws| try_test(bars, targets, draws, 1).unwrap_err().to_string();
        assert!(error(0..3, &array![[1.0], [0.0]], 5).contains("3 bars are too few"));
        assert!(error(0..300, &knowing, 0).contains("`draws`"));
        assert!(error(0..200, &knowing, 5).contains("targets"));
        let mut unknown = knowing.clone();
        unknown[[7, 0]] = f64::NAN;
        assert!(error(0..300, &unknown, 5).contains("target of instrument 0 is NaN"));
    }
}

/// Without knowledge p-values are uniform: positions drawn at random, on many markets. The device finds the same ones, and trades most
/// draws itself.
#[test]
fn p_values_of_random_positions_are_uniform() {
    let gpus = both_classes();
    let (mut p_values, mut on_device) = (Vec::new(), 0);
    for market in 0..120 {
        let (candles, targets) = (walk(80, 0.02, 9 + market), guesses(79, market));
        let test = random_timing(&candles, &(0..80), targets.view(), &options(), 60, market).unwrap();
        let gpu = &gpus[market as usize % 2];
        let other =
            random_timing_on_device(gpu, &candles, &(0..80), targets.view(), &options(), 60, market).unwrap();
        assert_eq!(test.p_value, other.p_value, "market {market}");
        for (found, wanted) in other.sharpe.iter().zip(&test.sharpe) {
            assert!((found - wanted).abs() < 1e-4, "market {market}: {found} for {wanted}");
        }
        on_device += other.on_device;
        p_values.push(test.p_value);
    }
    // 120 uniform numbers: below 0.2 are 24, with a deviation of 4.4.
    let below = |limit: f64| p_values.iter().filter(|p| **p <= limit).count();
    assert!((12..=37).contains(&below(0.2)), "{}", below(0.2));
    assert!((45..=75).contains(&below(0.5)), "{}", below(0.5));
    assert!(on_device > 120 * 45, "{on_device} of {} draws", 120 * 60);
}

/// Positions that repeat after 11 decisions: every eleventh shift is the agents' own account, but for the ends. Ties, and draws a little
/// to either side, are those of f64.
#[test]
fn ties_are_told_apart_as_in_f64() {
    let candles = walk(221, 0.01, 4);
    let targets = Array2::from_shape_fn((220, 1), |(row, _)| if row % 11 < 4 { 1.0 } else { -0.5 });
    let expected = random_timing(&candles, &(0..221), targets.view(), &options(), 1000, 3).unwrap();
    // 220 is a multiple of 11.
    let own = account(&candles, &(0..221), targets.view(), &options()).unwrap().sharpe.unwrap();
    assert_eq!(expected.sharpe.iter().filter(|sharpe| **sharpe == own).count(), 19);
    for gpu in &both_classes() {
        let found =
            random_timing_on_device(gpu, &candles, &(0..221), targets.view(), &options(), 1000, 3).unwrap();
        assert_eq!(found.p_value, expected.p_value);
        assert_eq!(found.sharpe.iter().filter(|sharpe| **sharpe == own).count(), 19);
        assert!(found.on_device < 219 - 19 && found.on_device > 150, "{}", found.on_device);
    }
}

/// Errors of the estimates, doubtful ones and ones that are not finite change no p-value: more draws are traded in f64.
#[test]
fn estimates_with_errors_give_the_p_value_of_f64() {
    let (candles, targets) = (walk(200, 0.01, 6), guesses(199, 6));
    let (options, bars) = (options(), 0..200);
    let test = Test::new((&candles, &bars), targets.view(), &options, 150, 7).unwrap();
    let exact = test.replay(&(0..150).collect::<Vec<_>>()).unwrap();
    let expected = random_timing(&candles, &bars, targets.view(), &options, 150, 7).unwrap();
    let mut replaced = Vec::new();
    for error in [0.0, 1e-6, 1e-3, 0.1] {
        let mut random = Stream::new(1, 3);
        let estimate = |figures: &Figures| Estimate {
            figures: Figures { sharpe: figures.sharpe + error * (2.0 * random.uniform() - 1.0), ..*figures },
            doubtful: false,
        };
        let mut estimates: Vec<_> = exact.iter().map(estimate).collect();
        for (at, sharpe) in [(20, f64::NAN), (21, 1e9), (22, -1e9), (23, f64::INFINITY)] {
            estimates[at] = Estimate { figures: Figures { sharpe, total_return: 5.0 }, doubtful: true };
        }
        let found = test.settle(&estimates).unwrap();
        assert_eq!(found.p_value, expected.p_value, "error {error}");
        assert_eq!(found.sharpe[20..24], expected.sharpe[20..24]);
        assert_eq!(found.total_return[20..24], expected.total_return[20..24]);
        replaced.push(150 - found.on_device);
    }
    assert!(replaced[0] >= PROBES + 4 && replaced[0] < 20, "{replaced:?}");
    assert!(replaced.is_sorted() && replaced[3] > 40, "{replaced:?}");
}

/// Interest on cash alone has hardly a deviation, and targets beyond f32 no figures: both are traded in f64.
#[test]
fn accounts_that_f32_cannot_tell_are_traded_in_f64() {
    let candles = walk(60, 0.01, 6);
    let mut rare = Array2::zeros((59, 1));
    rare[[30, 0]] = 1e-9;
    let mut huge = Array2::zeros((59, 1));
    huge[[30, 0]] = 1e300;
    let costs = Costs { cash_rate: 0.05, ..Costs::NONE };
    for (targets, costs) in [(rare, costs), (huge, Costs::NONE)] {
        let options = ReplayOptions { costs, ..options() };
        let expected = random_timing(&candles, &(0..60), targets.view(), &options, 40, 7);
        for gpu in &both_classes() {
            let found = random_timing_on_device(gpu, &candles, &(0..60), targets.view(), &options, 40, 7);
            match (&expected, found) {
                (Ok(expected), Ok(found)) => assert_eq!(found, *expected),
                (Err(expected), Err(found)) => assert_eq!(found.to_string(), expected.to_string()),
                (_, found) => panic!("{found:?} for {expected:?}"),
            }
        }
    }
}

#[test]
fn shifts_are_distinct_and_complete() {
    for (most, count) in [(1, 1), (10, 10), (50, 7)] {
        let mut drawn = distinct(most, count, 3);
        assert_eq!(drawn.len(), count);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), count);
        assert!(drawn.iter().all(|shift| (1..=most).contains(shift)));
    }
}
