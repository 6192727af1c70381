//! Training finds a predictive feature, and finds nothing in a shuffled one.

use ndarray::Array3;
use phalanx::backtest::{Backtest, PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Precision, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};
use phalanx::policy::MarketMetadata;
use phalanx::random::Stream;

use crate::{common, testing};

const BARS: usize = 900;
const TRAIN: usize = 700;
const MOVE: f64 = 0.01;

/// Signs of the moves, `[instrument][bar]`.
fn signs(instruments: usize) -> Vec<Vec<f64>> {
    let mut stream = Stream::new(3, 9);
    let mut sign = || if stream.uniform() < 0.5 { -1.0 } else { 1.0 };
    (0..instruments).map(|_| (0..BARS).map(|_| sign()).collect()).collect()
}

/// Trains with a feature that equals the next move (or with the shuffled values of that feature) and returns the fraction
/// of the best possible log return that the policy earns on held-out bars.
fn share_of_optimum(visible: bool, precision: Precision, seed: u64) -> f64 {
    let signs = signs(2);
    let candles = common::candles(2, BARS, |i, bar| MOVE * signs[i][bar]);
    let mut order: Vec<usize> = (0..BARS).collect();
    if !visible {
        let mut stream = Stream::new(4, 9);
        for last in (1..BARS).rev() {
            order.swap(last, (stream.uniform() * (last + 1) as f64) as usize);
        }
    }
    // At the close of bar t the feature is the move of bar t+1, which an order filled at its open earns.
    let told = |i: usize, bar: usize| signs[i][(order[bar] + 1) % BARS];
    let extra = ExtraFeatures {
        names: vec!["oracle".into()],
        values: Array3::from_shape_fn((1, 2, BARS), |(_, i, bar)| told(i, bar)),
    };
    let gpu = testing::unchecked_gpu();
    let data = MarketData::new(&gpu, &candles, &extra, &Scaling::Fit(0..TRAIN)).unwrap();
    let market =
        TradingSettings { commission_bps: 0.0, slippage_bps: 0.0, episode_length: 64, ..Default::default() };
    let mut config = Config::default();
    config.ppo.num_envs = 32;
    config.ppo.rollout_steps = 32;
    config.ppo.epochs = 5;
    config.ppo.iterations = 20;
    config.ppo.gamma = 0.5;
    config.ppo.seed = seed;
    config.network.hidden = vec![32];
    config.optimizer.actor_learning_rate = 2e-3;
    config.optimizer.critic_learning_rate = 2e-3;
    config.device.precision = precision;
    let bars = data.first_bar()..TRAIN;
    let environment = Trading::new(&data, &market, &Episodes::Random(bars)).unwrap();
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();

    let market = MarketMetadata {
        settings: market.clone(),
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[0],
        train_to: candles.timestamps[TRAIN - 1],
        test_from: candles.timestamps[TRAIN],
        bars: None,
    };
    let policy = trainer.policy().unwrap().with_market(market).unwrap();
    let bars = TRAIN..BARS;
    let targets = policy.targets(&gpu, &data, &bars).unwrap();
    let earned = log_return(&candles, &targets);
    let best = ndarray::Array2::from_shape_fn(targets.dim(), |(row, i)| signs[i][TRAIN + row + 1]);
    earned / log_return(&candles, &best)
}

fn log_return(candles: &Candles, targets: &ndarray::Array2<f64>) -> f64 {
    let options = ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1.0,
        bankruptcy_level: 0.0,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    };
    let replay = Backtest::replay(candles, TRAIN..BARS, targets.view(), &options).unwrap();
    replay.equity.last().unwrap().ln()
}

#[test]
fn a_visible_move_is_learnt_and_a_shuffled_one_is_not() {
    let mean = |precision| {
        let shares = [1, 2, 3].map(|seed| share_of_optimum(true, precision, seed));
        println!("{precision:?}: {shares:.3?} of the optimum");
        assert!(shares.iter().all(|share| *share > 0.9), "{precision:?}: {shares:.3?} of the optimum");
        shares.iter().sum::<f64>() / 3.0
    };
    let (whole, half) = (mean(Precision::F32), mean(Precision::F16));
    assert!((whole - half).abs() < 0.03, "{whole:.3} of the optimum in f32, {half:.3} in f16");
    let shuffled = share_of_optimum(false, Precision::F16, 1);
    assert!(shuffled < 0.3, "{shuffled:.3} of the optimum out of noise: something leaks");
}
