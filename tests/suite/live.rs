//! A live policy makes the decisions of the backtest.

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Precision, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::{Holdings, Live, MarketMetadata, Policy};

use crate::testing;

/// Bars of the training.
const TRAIN: usize = 1000;

fn candles() -> Candles {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/us4_daily.csv.gz");
    Candles::load(&[path], GapPolicy::Reject).unwrap()
}

/// A policy trained for an iteration, of which the head's weights are raised so that all actions occur.
fn policy(
    data: &MarketData,
    candles: &Candles,
    settings: TradingSettings,
    precision: Precision,
    gru: bool,
) -> Policy {
    let gpu = testing::gpu();
    let bars = data.first_bar()..TRAIN;
    let environment = Trading::new(data, &settings, &Episodes::Random(bars)).unwrap();
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 16;
    config.ppo.iterations = 1;
    config.ppo.epochs = 1;
    config.network.hidden = vec![16];
    config.network.recurrent = gru;
    config.device.precision = precision;
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| ()).unwrap();
    let mut weights = trainer.weights().unwrap();
    let head = trainer.layout().tensors.iter().find(|tensor| tensor.name == "actor.1.weight").unwrap();
    for row in 0..head.shape[0] {
        let first = head.first + row * head.stride;
        weights[first..first + head.shape[1]].iter_mut().for_each(|weight| *weight *= 100.0);
    }
    let market = MarketMetadata {
        settings,
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[data.first_bar()],
        train_to: candles.timestamps[TRAIN - 1],
        test_from: candles.timestamps[TRAIN],
        bars: None,
    };
    trainer.policy_of(weights, vec![]).unwrap().with_market(market).unwrap()
}

/// The last 700 bars, whose account and memory begin there; all bars with `PHALANX_EVERY_BAR`, as in `make test-nightly`.
#[test]
fn live_decisions_are_those_of_the_backtest() {
    let gpu = testing::gpu();
    let candles = candles();
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..TRAIN)).unwrap();
    let costly = TradingSettings {
        commission_bps: 7.0,
        borrow_rate: 0.05,
        margin_rate: 0.08,
        max_leverage: Some(0.8),
        episode_length: 16,
        ..TradingSettings::default()
    };
    for (precision, gru) in
        [(Precision::F32, false), (Precision::F32, true), (Precision::F16, false), (Precision::F16, true)]
    {
        let policy = policy(&data, &candles, costly.clone(), precision, gru);
        let every = std::env::var_os("PHALANX_EVERY_BAR").is_some();
        let bars = if every { data.first_bar() } else { candles.bars() - 700 }..candles.bars();
        let expected = policy.targets(&gpu, &data, &bars).unwrap();
        let mut live = Live::new(&gpu, &policy).unwrap();
        live.warm_up(&candles.slice(0..bars.start).unwrap(), &ExtraFeatures::default()).unwrap();
        let mut changes = 0;
        for (row, bar) in bars.clone().take(expected.nrows()).enumerate() {
            let mut now = candles.live_bars(bar);
            let decision = live.decide(candles.timestamps[bar], &mut now, &[], None).unwrap().unwrap();
            let expected = expected.row(row).to_vec();
            assert_eq!(decision.targets, expected, "{precision:?}, GRU {gru}, bar {bar}");
            changes += usize::from(row > 0 && live.last().targets != live.account().level());
        }
        let decisions = expected.len();
        println!("{precision:?}, GRU {gru}: {decisions} decisions equal, {changes} bars with orders");
        assert!(changes > 50, "{changes} bars with orders");
    }
}

#[test]
fn real_holdings_replace_the_simulated_account() {
    let gpu = testing::gpu();
    let candles = candles();
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..TRAIN)).unwrap();
    let settings = TradingSettings { episode_length: 16, ..TradingSettings::default() };
    let policy = policy(&data, &candles, settings, Precision::F32, false);
    let mut live = Live::new(&gpu, &policy).unwrap();
    let bar = |bar: usize| candles.live_bars(bar);
    // Without history there is no decision.
    assert!(live.decide(candles.timestamps[0], &mut bar(0), &[], None).unwrap().is_none());
    live.warm_up(&candles.slice(1..100).unwrap(), &ExtraFeatures::default()).unwrap();
    let units = [1.0, -2.0, 0.0, 4.0];
    let holdings = Holdings { equity: 5000.0, units: &units };
    let start = 5000.0;
    let decision = live.decide(candles.timestamps[100], &mut bar(100), &[], Some(holdings)).unwrap().unwrap();
    assert_eq!((decision.equity, &decision.units[..]), (5000.0, &units[..]));
    // Half of the training's starting equity is not bankrupt, and the account goes on from there.
    assert!(!decision.bankrupt && decision.targets.iter().any(|target| *target != 0.0), "{decision:?}");
    let targets = decision.targets.clone();
    live.decide(candles.timestamps[101], &mut bar(101), &[], None).unwrap();
    assert_eq!(live.account().level(), targets);
    let gain = live.account().equity() - start;
    assert!(gain != 0.0 && gain.abs() < 500.0, "{gain}");
    // A position on the other side than its level is what it is.
    let levels = live.account().level().to_vec();
    let turned: Vec<f64> = levels.iter().map(|level| -100.0 * level).collect();
    let holdings = Holdings { equity: 5000.0, units: &turned };
    live.decide(candles.timestamps[102], &mut bar(102), &[], Some(holdings)).unwrap();
    assert!(live.account().level().iter().zip(&levels).all(|(level, before)| level * before <= 0.0));
    let wrong = Holdings { equity: f64::NAN, units: &units };
    let error = live.decide(candles.timestamps[103], &mut bar(103), &[], Some(wrong)).unwrap_err();
    assert!(error.to_string().contains("equity of the account is NaN"), "{error}");
    let ruined = Holdings { equity: 1.0, units: &[0.0; 4] };
    let decision = live.decide(candles.timestamps[103], &mut bar(103), &[], Some(ruined)).unwrap().unwrap();
    assert!(decision.bankrupt && decision.targets == [0.0; 4]);
}
