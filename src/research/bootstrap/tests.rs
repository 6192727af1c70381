use super::super::testing::golden;
use super::*;

/// The fixture's resamples are drawn in Python.
#[test]
fn the_definition_in_another_language() {
    let case = golden("intervals");
    let want: Vec<usize> =
        case["one_resample"].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap() as usize).collect();
    let bootstrap = StationaryBootstrap::new(72, 4.0, case["seed"].as_u64().unwrap()).unwrap();
    assert_eq!(bootstrap.indices(2), want);
    assert_eq!(bootstrap.block_length(), 4.0);
}

#[test]
fn blocks_have_the_mean_length_and_wrap_around() {
    let bootstrap = StationaryBootstrap::new(1000, 8.0, 3).unwrap();
    let (mut blocks, mut wraps) = (0, 0);
    let mut times = vec![0; 1000];
    for resample in 0..200 {
        let indices = bootstrap.indices(resample);
        assert_eq!(indices.len(), 1000);
        indices.iter().for_each(|bar| times[*bar] += 1);
        blocks += indices.windows(2).filter(|pair| (pair[0] + 1) % 1000 != pair[1]).count();
        wraps += indices.windows(2).filter(|pair| pair[0] == 999 && pair[1] == 0).count();
    }
    let mean = 200_000.0 / f64::from(u32::try_from(blocks).unwrap());
    assert!((mean / 8.0 - 1.0).abs() < 0.03, "{mean}");
    assert!((100..250).contains(&wraps), "{wraps}");
    // Bars at both ends are drawn as often as the others.
    assert!(times.iter().all(|times| (100..320).contains(times)), "{times:?}");
}

#[test]
fn seeds_and_resamples_differ_and_repeat() {
    let bootstrap = StationaryBootstrap::new(50, 3.0, 1).unwrap();
    assert_eq!(bootstrap.indices(4), StationaryBootstrap::new(50, 3.0, 1).unwrap().indices(4));
    assert_ne!(bootstrap.indices(4), bootstrap.indices(5));
    assert_ne!(bootstrap.indices(4), StationaryBootstrap::new(50, 3.0, 2).unwrap().indices(4));
}

#[test]
fn extreme_block_lengths() {
    let one = StationaryBootstrap::new(5, 1.0, 1).unwrap();
    assert!((0..20).any(|resample| one.indices(resample).windows(2).any(|pair| pair[0] + 1 != pair[1])));
    let rotated = StationaryBootstrap::new(5, 1e300, 1).unwrap().indices(0);
    assert!(rotated.windows(2).all(|pair| (pair[0] + 1) % 5 == pair[1]), "{rotated:?}");
    assert_eq!(StationaryBootstrap::new(1, f64::MAX, 1).unwrap().indices(9), [0]);
    StationaryBootstrap::new(0, 2.0, 1).unwrap_err();
    for length in [0.99, 0.0, -3.0, f64::NAN, f64::INFINITY] {
        StationaryBootstrap::new(5, length, 1).unwrap_err();
    }
    for (bars, length) in [(5, 3.0), (120, 34.0), (10_000, 301.0)] {
        let given = Resampling { block_length: Some(length), ..Resampling::default() };
        let error = given.bootstrap(bars, || Ok(1.0)).unwrap_err().to_string();
        assert!(error.contains(&format!("too long for {bars} bars")), "{error}");
        let given = Resampling { block_length: Some(length - 1.0), ..given };
        given.bootstrap(bars, || Ok(1.0)).unwrap();
    }
    for resamples in [0, 9, 1_000_001] {
        Resampling { resamples, ..Resampling::default() }.bootstrap(5, || Ok(1.0)).unwrap_err();
    }
}
