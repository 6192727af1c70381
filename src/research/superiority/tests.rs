use ndarray::Array2;

use super::super::testing::{close_to, golden, matrix, normals, number, numbers};
use super::*;

#[test]
fn numbers_of_holdout_and_arch() {
    let golden = golden("superiority");
    let differentials = matrix(&golden["differentials"]);
    let resampling = Resampling {
        block_length: Some(number(&golden["block_length"])),
        resamples: golden["resamples"].as_u64().unwrap() as u32,
        seed: golden["seed"].as_u64().unwrap(),
    };
    let sample = Sample::new(differentials.view(), 4.0).unwrap();
    for (model, want) in sample.models.iter().zip(numbers(&golden["omega_arch"])) {
        close_to("omega", model.omega, want, 1e-12);
    }
    let recentred: Vec<bool> = sample.models.iter().map(|model| model.kept_consistent == 0.0).collect();
    assert_eq!(serde_json::to_value(recentred).unwrap(), golden["recentred_arch"]);
    let test = superiority(differentials.view(), &resampling).unwrap();
    close_to(
        "reality check",
        test.reality_check.statistic,
        number(&golden["reality_check"]["statistic"]),
        1e-12,
    );
    close_to(
        "reality check p",
        test.reality_check.p_value,
        number(&golden["reality_check"]["p_value"]),
        1e-14,
    );
    let spa = &golden["spa"];
    close_to("SPA", test.spa.statistic, number(&spa["statistic"]), 1e-12);
    close_to("lower", test.spa.lower, number(&spa["lower"]), 1e-14);
    close_to("consistent", test.spa.consistent, number(&spa["consistent"]), 1e-14);
    close_to("upper", test.spa.upper, number(&spa["upper"]), 1e-14);
    let adjusted = numbers(&golden["adjusted_p_values"]);
    for (got, want) in test.adjusted_p_values.iter().zip(&adjusted) {
        close_to("adjusted", *got, *want, 1e-14);
    }
    assert_eq!(test.adjusted_p_values.len(), adjusted.len());

    // holdout takes omega from the resamples, and draws them with numpy.
    let own = &golden["holdout_own_draws"];
    let test = superiority(differentials.view(), &Resampling { resamples: 20_000, ..resampling }).unwrap();
    let near = |got: f64, want: &serde_json::Value| {
        let want = number(want);
        assert!((got - want).abs() < 0.02, "{got} {want}");
    };
    near(test.reality_check.p_value, &own["reality_check"]);
    near(test.spa.lower, &own["lower"]);
    near(test.spa.consistent, &own["consistent"]);
    near(test.spa.upper, &own["upper"]);
    test.adjusted_p_values
        .iter()
        .enumerate()
        .for_each(|(model, p)| near(*p, &own["adjusted_p_values"][model]));
}

#[test]
fn the_closed_form_of_omega() {
    for (bars, length) in [(17, 1.0), (40, 3.5), (40, 1e6), (200, 12.0)] {
        let mut series = normals(6, bars);
        let mean = series.iter().sum::<f64>() / bars as f64;
        series.iter_mut().for_each(|d| *d -= mean);
        let (count, q) = (bars as f64, 1.0f64 - 1.0 / length);
        let covariance =
            |lag: usize| series.iter().zip(&series[lag..]).map(|(a, b)| a * b).sum::<f64>() / count;
        let weight = |lag: f64| (1.0 - lag / count) * q.powf(lag) + lag / count * q.powf(count - lag);
        let want =
            covariance(0) + 2.0 * (1..bars).map(|lag| weight(lag as f64) * covariance(lag)).sum::<f64>();
        let got = kernel_variance(ndarray::aview1(&series), length);
        assert!((got - want).abs() < 1e-11, "{bars} {length}: {got} {want}");
    }
}

/// `models` columns of independent normals, with the mean `shift` in the first.
fn noise(seed: u64, bars: usize, models: usize, shift: f64) -> Array2<f64> {
    let values = normals(seed, bars * models);
    let at =
        |(bar, model): (usize, usize)| values[bar * models + model] + if model == 0 { shift } else { 0.0 };
    Array2::from_shape_fn((bars, models), at)
}

#[test]
fn p_values_without_superiority_are_about_uniform() {
    let resampling = Resampling { block_length: Some(2.0), resamples: 200, seed: 3 };
    let tests: Vec<_> =
        (0..300).map(|seed| superiority(noise(seed, 100, 5, 0.0).view(), &resampling).unwrap()).collect();
    let mean = tests.iter().map(|test| test.reality_check.p_value).sum::<f64>() / 300.0;
    assert!((0.44..0.56).contains(&mean), "{mean}");
    for alpha in [0.1, 0.25, 0.5, 0.75] {
        let share =
            |p: fn(&Superiority) -> f64| tests.iter().filter(|test| p(test) <= alpha).count() as f64 / 300.0;
        let shares = [
            share(|test| test.reality_check.p_value),
            share(|test| test.spa.consistent),
            share(|test| test.adjusted_p_values.iter().copied().fold(1.0, f64::min)),
        ];
        assert!(shares.iter().all(|share| (share - alpha).abs() < 0.09), "{alpha}: {shares:?}");
    }
}

#[test]
fn the_better_model_is_found() {
    let test = superiority(noise(1, 250, 20, 0.5).view(), &Resampling::default()).unwrap();
    assert_eq!(test.best, 0);
    assert!(test.spa.consistent < 0.01 && test.reality_check.p_value < 0.01, "{test:?}");
    assert!(test.adjusted_p_values[0] < 0.01);
    assert!(test.adjusted_p_values[1..].iter().all(|p| *p > 0.05), "{:?}", test.adjusted_p_values);
    assert!(test.spa.lower <= test.spa.consistent && test.spa.consistent <= test.spa.upper);
    assert_eq!(test, superiority(noise(1, 250, 20, 0.5).view(), &Resampling::default()).unwrap());
}

/// Poor models make the reality check timid and leave the consistent p-value as it is.
#[test]
fn poor_models_do_not_count() {
    let mut differentials = noise(4, 250, 12, 0.18);
    for model in 1..12 {
        differentials.column_mut(model).mapv_inplace(|d| 3.0 * d - 1.5);
    }
    let test = superiority(differentials.view(), &Resampling::default()).unwrap();
    assert!(test.spa.consistent < 0.05 && test.reality_check.p_value > 0.3, "{test:?}");
    assert!(test.spa.upper > 2.0 * test.spa.consistent);
    let worse = differentials.slice(ndarray::s![.., 1..]);
    let test = superiority(worse, &Resampling::default()).unwrap();
    assert_eq!(
        (test.spa.statistic, test.spa.lower, test.spa.consistent, test.spa.upper),
        (0.0, 1.0, 1.0, 1.0)
    );
}

#[test]
fn equal_models_have_equal_p_values() {
    let column = normals(8, 60);
    let equal = Array2::from_shape_fn((60, 4), |(bar, _)| column[bar]);
    let test = superiority(equal.view(), &Resampling::default()).unwrap();
    assert_eq!(test.best, 0);
    assert!(test.adjusted_p_values.iter().all(|p| *p == test.adjusted_p_values[0]));
}

#[test]
fn errors_name_what_is_missing() {
    let text = |differentials: &Array2<f64>| {
        superiority(differentials.view(), &Resampling::default()).unwrap_err().to_string()
    };
    assert!(text(&Array2::zeros((40, 0))).contains("fewer than 1 models, got 0"));
    assert!(text(&Array2::zeros((1, 3))).contains("fewer than 16 bars, got 1"));
    assert!(text(&Array2::zeros((40, 3))).contains("model 0 has zero variance"));
    let mut broken = noise(1, 40, 3, 0.0);
    broken[[5, 1]] = f64::NAN;
    assert!(text(&broken).contains("model 1 is NaN at bar 5"));
    broken.column_mut(1).fill(0.25);
    assert!(text(&broken).contains("model 1 has zero variance"));
    broken[[5, 1]] = 1e300;
    assert!(text(&broken).contains("too large"));
    for length in [0.5, f64::NAN] {
        let resampling = Resampling { block_length: Some(length), ..Resampling::default() };
        superiority(noise(1, 40, 3, 0.0).view(), &resampling).unwrap_err();
    }
}
