//! Agents trained on markets with a known answer: the verdict on bars that they had not seen is right.

use phalanx::backtest::{Backtest, PeriodsPerYear, ReplayOptions};
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};
use phalanx::policy::MarketMetadata;
use phalanx::random::Stream;
use phalanx::research::{Assessment, AssessmentOptions, Trial, Trials, Verdict};

use crate::{common, testing};

const BARS: usize = 1300;
const TRAIN: usize = 800;
const INSTRUMENTS: usize = 2;
/// Deviation of the log return of a bar.
const DEVIATION: f64 = 0.01;

/// A market: the sign of a bar's return says of the next one that its mean is `strength` deviations in the same direction.
#[derive(Clone, Copy, Debug)]
struct Market {
    name: &'static str,
    strength: f64,
    /// The same after the training bars.
    later: f64,
    /// Costs of an order.
    bps: f64,
    learnt: bool,
}

const MARKETS: [Market; 4] = [
    Market { name: "predictable", strength: 0.4, later: 0.4, bps: 2.0, learnt: true },
    Market { name: "noise", strength: 0.0, later: 0.0, bps: 2.0, learnt: false },
    Market { name: "a regime that ends with training", strength: 0.4, later: -0.4, bps: 2.0, learnt: false },
    // A change of sides costs 2 x 12 bps and earns 2 x 10 bps over the one bar that the sign tells of.
    Market { name: "costs just above the edge", strength: 0.1, later: 0.1, bps: 12.0, learnt: false },
];

fn candles(market: &Market, seed: u64) -> Candles {
    let mut random = Stream::new(seed, 21);
    let mut before = [0.0; INSTRUMENTS];
    let mut moves = vec![[0.0; INSTRUMENTS]; BARS];
    for (bar, all) in moves.iter_mut().enumerate() {
        let strength = if bar < TRAIN { market.strength } else { market.later };
        for (now, before) in all.iter_mut().zip(&mut before) {
            *now = DEVIATION * (strength * f64::signum(*before) + random.normal());
            *before = *now;
        }
    }
    common::candles(INSTRUMENTS, BARS, |instrument, bar| moves[bar][instrument])
}

/// Trains on the first bars, and judges the account of the others.
fn verdict(market: &Market, seed: u64) -> Verdict {
    let gpu = testing::unchecked_gpu();
    let candles = candles(market, seed);
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..TRAIN)).unwrap();
    let rules = TradingSettings {
        commission_bps: market.bps,
        slippage_bps: 0.0,
        episode_length: 64,
        ..Default::default()
    };
    let mut config = Config::default();
    config.ppo.num_envs = 32;
    config.ppo.rollout_steps = 32;
    config.ppo.epochs = 5;
    config.ppo.iterations = 40;
    config.ppo.gamma = 0.5;
    config.ppo.seed = seed;
    config.network.hidden = vec![32];
    config.optimizer.actor_learning_rate = 2e-3;
    config.optimizer.critic_learning_rate = 2e-3;
    let environment = Trading::new(&data, &rules, &Episodes::Random(data.first_bar()..TRAIN)).unwrap();
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    let metadata = MarketMetadata {
        settings: rules.clone(),
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[0],
        train_to: candles.timestamps[TRAIN - 1],
        test_from: candles.timestamps[TRAIN],
        bars: None,
    };
    let policy = trainer.policy().unwrap().with_market(metadata).unwrap();

    let bars = TRAIN..BARS;
    let targets = policy.targets(&gpu, &data, &bars).unwrap();
    let replay = ReplayOptions {
        costs: rules.costs(&candles.symbols).unwrap(),
        max_leverage: rules.max_leverage,
        starting_equity: rules.starting_equity,
        bankruptcy_level: rules.bankruptcy_level,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    };
    let backtest = Backtest::replay(&candles, bars.clone(), targets.view(), &replay).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ledger = Trials::open(&folder.path().join("trials.jsonl")).unwrap();
    let trial = Trial::new("backtest", "run", "", &candles, bars.clone(), &backtest).unwrap();
    let deflated = ledger.deflated(&trial).unwrap();
    let options = AssessmentOptions { draws: 200, resamples: 200, ..Default::default() };
    let judged =
        Assessment::new(&backtest, &candles, &bars, targets.view(), &replay, deflated, &options).unwrap();
    println!(
        "{}, seed {seed}: {:?}, Sharpe {:?}, p of the timing {:.3}",
        market.name, judged.verdict, backtest.metrics.sharpe, judged.timing.p_value
    );
    judged.verdict
}

/// `PHALANX_KNOWN_MARKETS` seeds of every market, of which 1 in 20 may be judged wrongly: the level of the tests.
#[test]
fn the_verdict_on_trained_agents_is_right() {
    let seeds = std::env::var("PHALANX_KNOWN_MARKETS").map_or(1, |count| count.parse().unwrap());
    for market in MARKETS {
        let right = (1..=seeds).filter(|seed| (verdict(&market, *seed) == Verdict::Learnt) == market.learnt);
        let right = right.count() as u64;
        assert!(20 * right >= 19 * seeds, "{}: {right} of {seeds} verdicts are right", market.name);
    }
}
