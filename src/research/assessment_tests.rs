use ndarray::Array2;

use super::*;
use crate::backtest::PeriodsPerYear;
use crate::env::ledger::Costs;
use crate::random::Stream;
use crate::research::{Trial, Trials};

/// Candles of two instruments whose next move from open to close is known with the given strength, and positions that follow it.
fn market(seed: u64, strength: f64) -> (Candles, Array2<f64>) {
    let mut random = Stream::new(seed, 8);
    let (mut open, mut close, mut signs) =
        (Array2::zeros((2, 500)), Array2::zeros((2, 500)), Array2::zeros((499, 2)));
    for i in 0..2 {
        let mut level = 100.0;
        for bar in 0..500 {
            let sign = if random.uniform() < 0.5 { -1.0 } else { 1.0 };
            open[[i, bar]] = level;
            level *= (0.01 * (random.normal() + strength * sign)).exp();
            close[[i, bar]] = level;
            if bar > 0 {
                signs[[bar - 1, i]] = sign;
            }
        }
    }
    let start = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..500).map(|day| start + jiff::ToSpan::days(day)).collect();
    let (high, low) = (
        Array2::from_shape_fn((2, 500), |at| f64::max(open[at], close[at])),
        Array2::from_shape_fn((2, 500), |at| f64::min(open[at], close[at])),
    );
    let symbols = vec!["A".into(), "B".into()];
    (Candles::new(symbols, timestamps, open, high, low, close, None).unwrap(), signs)
}

fn assess(candles: &Candles, targets: &Array2<f64>) -> Assessment {
    assess_on(None, candles, targets)
}

fn assess_on(gpu: Option<&Gpu>, candles: &Candles, targets: &Array2<f64>) -> Assessment {
    let replay = ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(100.0).unwrap(),
    };
    let bars = 100..500;
    let backtest = Backtest::replay(candles, bars.clone(), targets.view(), &replay).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ledger = Trials::open(&folder.path().join("trials.jsonl")).unwrap();
    let trial = Trial::new("backtest", "run", "", candles, bars.clone(), &backtest).unwrap();
    let options = AssessmentOptions { draws: 100, resamples: 100, gpu, ..Default::default() };
    let deflated = ledger.deflated(&trial).unwrap();
    Assessment::new(&backtest, candles, &bars, targets.view(), &replay, deflated, &options).unwrap()
}

#[test]
fn knowledge_is_learnt_and_noise_is_not() {
    let mut learnt = [0; 2];
    for seed in 0..20 {
        for (case, strength) in [0.0, 0.5].into_iter().enumerate() {
            let (candles, signs) = market(seed, strength);
            let targets = signs.slice(ndarray::s![100.., ..]).to_owned();
            learnt[case] += usize::from(assess(&candles, &targets).verdict == Verdict::Learnt);
        }
    }
    assert!(learnt[0] <= 1 && learnt[1] >= 19, "{learnt:?} of 20");
}

#[test]
fn the_device_finds_the_same_verdict() {
    let gpu = crate::testing::gpu();
    for (seed, strength) in [(1, 0.0), (2, 0.5)] {
        let (candles, signs) = market(seed, strength);
        let targets = signs.slice(ndarray::s![100.., ..]).to_owned();
        let [cpu, device] = [None, Some(&gpu)].map(|gpu| assess_on(gpu, &candles, &targets));
        assert_eq!((cpu.verdict, cpu.timing.p_value), (device.verdict, device.timing.p_value));
        assert!(cpu.timing.on_device == 0 && device.timing.on_device > 50, "{}", device.timing.on_device);
    }
}

#[test]
fn a_beaten_agent_is_said_to_be_beaten() {
    let (candles, signs) = market(3, 0.5);
    let targets = signs.slice(ndarray::s![100.., ..]).mapv(|sign| -sign);
    let beaten = assess(&candles, &targets);
    assert!(matches!(beaten.verdict, Verdict::BeatenBy(_)), "{:?}", beaten.verdict);
    let names: Vec<_> = beaten.baselines.iter().map(|it| it.baseline.name()).collect();
    assert_eq!(names, ["buy and hold", "equal weight, rebalanced monthly", "momentum", "flat"]);
    let flat = assess(&candles, &Array2::zeros((399, 2)));
    assert_eq!((flat.verdict, flat.sharpe.is_none(), flat.deflated), (Verdict::NeverTraded, true, None));
    assert!(flat.resampled.is_empty());
    let interval = beaten.sharpe.unwrap();
    assert_eq!(beaten.resampled.len(), interval.resamples);
    assert!(beaten.resampled.is_sorted() && beaten.resampled[0] <= interval.percentile[0]);
    // Buy and hold is level with itself, and has no timing.
    let hold = assess(&candles, &Array2::ones((399, 2)));
    assert_eq!(hold.baselines[0].difference.as_ref().unwrap().p_value, 1.0);
    assert_ne!(hold.verdict, Verdict::Learnt);
}
