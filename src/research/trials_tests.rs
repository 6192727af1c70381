use ndarray::Array2;

use super::*;
use crate::backtest::{PeriodsPerYear, ReplayOptions};
use crate::env::ledger::Costs;
use crate::random::Stream;

fn candles() -> Candles {
    let mut random = Stream::new(3, 3);
    let mut level = 50.0;
    let close = Array2::from_shape_simple_fn((1, 200), || {
        level *= (0.01 * random.normal()).exp();
        level
    });
    let start = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..200).map(|day| start + jiff::ToSpan::days(day)).collect();
    let prices = || close.clone();
    Candles::new(vec!["A".into()], timestamps, prices(), prices(), prices(), prices(), None).unwrap()
}

/// An account that is long every `every`-th bar.
fn trial(candles: &Candles, bars: Range<usize>, every: usize) -> Trial {
    let options = ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(365.0).unwrap(),
    };
    let targets = Array2::from_shape_fn((bars.len() - 1, 1), |(bar, _)| f64::from(bar % every == 0));
    let backtest = Backtest::replay(candles, bars.clone(), targets.view(), &options).unwrap();
    Trial::new("backtest", "run", &format!("every = {every}"), candles, bars, &backtest).unwrap()
}

#[test]
fn trials_are_recorded_once_and_deflate_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trials.jsonl");
    let candles = candles();
    let mine = trial(&candles, 100..200, 2);
    let mut ledger = Trials::open(&path).unwrap();
    let first = ledger.record(mine.clone()).unwrap();
    assert_eq!(first.trial, 1);
    let alone = ledger.deflated(&mine).unwrap().unwrap();
    assert_eq!((alone.trials, alone.deflated), (1.0, alone.probabilistic));
    let again = Trial { run: "copy".into(), command: "walk-forward".into(), ..mine.clone() };
    assert_eq!(ledger.record(again).unwrap(), first);
    for every in 3..8 {
        assert_eq!(ledger.record(trial(&candles, 110..200, every)).unwrap().trial, every - 1);
    }
    // Other bars, which do not overlap.
    ledger.record(trial(&candles, 0..100, 2)).unwrap();
    drop(ledger);
    let ledger = Trials::open(&path).unwrap();
    assert_eq!((ledger.trials().len(), ledger.trials()[0].clone()), (7, mine.clone()));
    assert!(ledger.holds(&first));
    assert_eq!(ledger.competing(&mine).count(), 6);
    let among = ledger.deflated(&mine).unwrap().unwrap();
    assert_eq!(among.trials, 6.0);
    assert!(among.deflated < alone.deflated);
    let sharpes: Vec<f64> = ledger.trials()[..6].iter().map(|it| it.statistics.sharpe.unwrap()).collect();
    let own = ReturnStatistics::new(&mine.returns).unwrap();
    let estimate =
        SharpeEstimate::new(own.sharpe.unwrap(), own.bars, own.skewness.unwrap(), own.kurtosis.unwrap());
    assert_eq!(among, estimate.unwrap().deflated_among(&sharpes).unwrap());
    // One that is not recorded counts too.
    let other = trial(&candles, 120..200, 9);
    assert_eq!(ledger.deflated(&other).unwrap().unwrap().trials, 7.0);
}

#[test]
fn changed_and_removed_trials_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trials.jsonl");
    let candles = candles();
    let mut ledger = Trials::open(&path).unwrap();
    let receipts: Vec<_> =
        (2..6).map(|every| ledger.record(trial(&candles, 100..200, every)).unwrap()).collect();
    drop(ledger);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let open = |lines: &[&str]| {
        std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        Trials::open(&path).map_err(|error| error.to_string())
    };
    for removed in 0..3 {
        let mut fewer = lines.clone();
        fewer.remove(removed);
        let error = open(&fewer).unwrap_err();
        assert!(error.contains(&format!("trials.jsonl:{}: checksum mismatch", removed + 1)), "{error}");
    }
    // Without its last line the file is whole; the receipt knows.
    let shorter = open(&lines[..3]).unwrap();
    assert!(shorter.holds(&receipts[2]) && !shorter.holds(&receipts[3]));
    drop(shorter);
    let better = lines[1].replace("\"total_return\":", "\"total_return\":1");
    assert!(open(&[lines[0], &better]).unwrap_err().contains(":2: checksum mismatch"));
    assert!(open(&[lines[0], &lines[1][..40]]).unwrap_err().contains(":2: not a trial"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(Trials::open(&path).unwrap_err().to_string().contains("not a text file"));
}

#[test]
fn numbers_that_json_cannot_hold_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trials.jsonl");
    let candles = candles();
    let mut ledger = Trials::open(&path).unwrap();
    let good = trial(&candles, 100..200, 2);
    ledger.record(good.clone()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = ledger.record(Trial {
        total_return: f64::NAN,
        settings: "x".into(),
        returns: vec![],
        ..good.clone()
    });
    assert!(error.unwrap_err().to_string().contains("not finite"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // Long accounts are kept in steps.
    assert_eq!((good.bars_per_return, good.returns.len()), (1, 99));
    let compounded: f64 = good.returns.iter().map(|r| 1.0 + r).product();
    assert!((compounded - 1.0 - good.total_return).abs() < 1e-12);
}
