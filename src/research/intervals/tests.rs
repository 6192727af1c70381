use super::super::testing::{close_to, golden, normals, number, numbers};
use super::super::{max_drawdown, sharpe_ratio, total_return};
use super::*;

type Statistic = fn(&[f64]) -> Option<f64>;

fn statistic(name: &str) -> Statistic {
    match name {
        "sharpe_ratio" => sharpe_ratio,
        "total_return" => total_return,
        "max_drawdown" => max_drawdown,
        _ => panic!("no statistic {name}"),
    }
}

fn compare(got: &BootstrapInterval, case: &serde_json::Value) {
    let what = |part: &str| format!("{part} of {} at {}", case["statistic"], case["block_length"]);
    close_to(&what("value"), got.value, number(&case["value"]), 1e-11);
    for (end, want) in numbers(&case["percentile"]).into_iter().enumerate() {
        close_to(&what("percentile"), got.percentile[end], want, 1e-11);
    }
    for key in ["bca", "bca_arch"] {
        // arch takes the share of resamples below the value for the bias, scipy and phalanx half of the equal ones too.
        let ends = case.get(key).map(numbers).unwrap_or_default();
        for (end, want) in ends.into_iter().enumerate() {
            close_to(&what(key), got.bca.unwrap()[end], want, 1e-10);
        }
    }
}

#[test]
fn numbers_of_scipy_and_arch() {
    let golden = golden("intervals");
    let (first, second) = (numbers(&golden["first"]), numbers(&golden["second"]));
    let level = number(&golden["level"]);
    let resampling = |case: &serde_json::Value| Resampling {
        block_length: Some(number(&case["block_length"])),
        resamples: golden["resamples"].as_u64().unwrap() as u32,
        seed: golden["seed"].as_u64().unwrap(),
    };
    for case in golden["single"].as_array().unwrap() {
        let statistic = statistic(case["statistic"].as_str().unwrap());
        let got = confidence_interval(&first, statistic, level, &resampling(case)).unwrap();
        compare(&got, case);
    }
    for case in golden["paired"].as_array().unwrap() {
        let statistic = statistic(case["statistic"].as_str().unwrap());
        let got = paired_difference(&first, &second, statistic, level, &resampling(case)).unwrap();
        compare(&got.difference, case);
        close_to("p-value", got.p_value, number(&case["p_value"]), 1e-14);
    }
    assert_eq!(
        (golden["single"].as_array().unwrap().len(), golden["paired"].as_array().unwrap().len()),
        (6, 6)
    );
}

fn mean(returns: &[f64]) -> Option<f64> {
    Some(returns.iter().sum::<f64>() / returns.len() as f64)
}

#[test]
fn intervals_cover_the_mean_of_independent_normals() {
    let resampling = Resampling { block_length: Some(1.0), resamples: 400, seed: 8 };
    let covered = |pick: fn(&BootstrapInterval) -> [f64; 2]| {
        let covers = |seed: &u64| {
            let interval = confidence_interval(&normals(*seed, 60), mean, 0.95, &resampling).unwrap();
            let [low, high] = pick(&interval);
            low < 0.0 && 0.0 < high
        };
        (100..500).filter(covers).count()
    };
    let (bca, percentile) =
        (covered(|interval| interval.bca.unwrap()), covered(|interval| interval.percentile));
    assert!((364..=392).contains(&bca) && (364..=392).contains(&percentile), "{bca} {percentile} of 400");
}

/// The p-value of equal means is about uniform, also for dependent returns.
#[test]
fn paired_p_values_without_a_difference() {
    let resampling = Resampling { resamples: 200, ..Resampling::default() };
    let rejected = (0..300)
        .filter(|seed| {
            let [mut a, mut b] = [normals(2 * seed + 1000, 120), normals(2 * seed + 1001, 120)];
            for series in [&mut a, &mut b] {
                (1..120).for_each(|bar| series[bar] += 0.3 * series[bar - 1]);
            }
            paired_difference(&a, &b, mean, 0.95, &resampling).unwrap().p_value <= 0.1
        })
        .count();
    assert!((15..=66).contains(&rejected), "{rejected} of 300 at 10 %");
}

#[test]
fn a_strategy_differs_from_itself_by_nothing() {
    let returns: Vec<f64> = normals(5, 90).iter().map(|r| 0.001 + 0.01 * r).collect();
    for statistic in [sharpe_ratio as Statistic, total_return, max_drawdown] {
        let same = paired_difference(&returns, &returns, statistic, 0.95, &Resampling::default()).unwrap();
        assert_eq!((same.difference.value, same.p_value), (0.0, 1.0));
        assert_eq!((same.difference.percentile, same.difference.bca), ([0.0, 0.0], None));
    }
}

#[test]
fn the_sign_of_a_difference() {
    let good: Vec<f64> = normals(5, 250).iter().map(|r| 0.004 + 0.01 * r).collect();
    let cash = [0.0; 250];
    let resampling = Resampling::default();
    let better = paired_difference(&good, &cash, total_return, 0.95, &resampling).unwrap();
    let worse = paired_difference(&cash, &good, total_return, 0.95, &resampling).unwrap();
    assert!(better.p_value < 0.01 && better.difference.percentile[0] > 0.0, "{better:?}");
    assert_eq!(better.p_value, worse.p_value);
    close_to("mirrored", -worse.difference.percentile[1], better.difference.percentile[0], 1e-12);
    assert_eq!(better, paired_difference(&good, &cash, total_return, 0.95, &resampling).unwrap());
    let other = Resampling { seed: 1, ..resampling };
    assert_ne!(better, paired_difference(&good, &cash, total_return, 0.95, &other).unwrap());
}

#[test]
fn a_statistic_that_does_not_vary_has_no_bca() {
    let returns = normals(1, 40);
    let fixed = confidence_interval(&returns, |_| Some(2.0), 0.9, &Resampling::default()).unwrap();
    assert_eq!((fixed.percentile, fixed.bca), ([2.0, 2.0], None));
    // No resample exceeds the largest return.
    let largest = |returns: &[f64]| returns.iter().copied().reduce(f64::max);
    let interval = confidence_interval(&returns, largest, 0.9, &Resampling::default()).unwrap();
    assert!(interval.percentile[1] <= interval.value);
    let cash = confidence_interval(&[0.0; 40], total_return, 0.9, &Resampling::default()).unwrap();
    assert_eq!((cash.value, cash.percentile, cash.bca), (0.0, [0.0, 0.0], None));
}

#[test]
fn blocks_cover_all_bars() {
    for (bars, length, count) in [(72, 4.0, 18), (73, 4.4, 18), (5, 1.0, 5), (3, 9.0, 0), (5000, 1.0, 1000)] {
        let blocks: Vec<_> = deleted_blocks(bars, length).collect();
        assert_eq!(blocks.len(), count);
        assert!(blocks.windows(2).all(|pair| pair[0].end == pair[1].start));
        if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
            assert_eq!((first.start, last.end), (0, bars));
        }
    }
}

#[test]
fn errors_name_what_is_missing() {
    let resampling = Resampling { block_length: Some(1.0), ..Resampling::default() };
    let text = |returns: &[f64], statistic: Statistic| {
        confidence_interval(returns, statistic, 0.95, &resampling).unwrap_err().to_string()
    };
    assert!(text(&[0.1], mean).contains("fewer than 2 returns, got 1"));
    assert!(text(&[0.1, f64::NAN], mean).contains("bar 1 is NaN"));
    assert!(text(&[0.1; 30], sharpe_ratio).contains("zero variance"));
    assert!(text(&[0.1, 0.2], |_| Some(f64::NAN)).contains("undefined"));
    assert!(text(&[0.1, 0.2], sharpe_ratio).contains("resamples"));
    let short = confidence_interval(&[0.1, 0.2], mean, 0.95, &Resampling::default()).unwrap_err().to_string();
    assert!(short.contains("give a block length"), "{short}");
    for level in [0.0, 1.0, f64::NAN] {
        confidence_interval(&[0.1, 0.2, 0.3], mean, level, &resampling).unwrap_err();
    }
    let lengths = paired_difference(&[0.1; 3], &[0.1; 4], mean, 0.9, &resampling).unwrap_err().to_string();
    assert!(lengths.contains("expected 3, as many as of the first strategy, got 4"), "{lengths}");
    paired_difference(&[0.1, 0.2], &[0.1, f64::INFINITY], mean, 0.9, &resampling).unwrap_err();
}
