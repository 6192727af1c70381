//! Several policies that decide together: the same on the CPU and on the device, in the library and in the program.

use phalanx::env::{ActionSpace, Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Precision, Sharing, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::{ActionMode, Ensemble, Live, MarketMetadata, Policy};

use crate::common::program::{DEMO, Workplace, refused, succeeded};
use crate::testing;

/// Bars of the training.
const TRAIN: usize = 1000;

/// The last bars are traded.
const TRADED: usize = 350;

struct Market {
    candles: Candles,
    data: MarketData,
    settings: TradingSettings,
}

impl Market {
    fn new(actions: ActionSpace) -> Self {
        let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
        let gpu = testing::gpu();
        let data =
            MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..TRAIN)).unwrap();
        let settings =
            TradingSettings { actions, shorting: false, episode_length: 16, ..TradingSettings::default() };
        Self { candles, data, settings }
    }

    /// A policy trained for an iteration, of which the head's weights are raised so that all actions occur.
    fn policy(&self, seed: u64, change: fn(&mut Config)) -> Policy {
        let Self { candles, data, settings } = self;
        let bars = data.first_bar()..TRAIN;
        let environment = Trading::new(data, settings, &Episodes::Random(bars)).unwrap();
        let mut config = Config::default();
        config.ppo.seed = seed;
        config.ppo.num_envs = 4;
        config.ppo.rollout_steps = 16;
        config.ppo.iterations = 1;
        config.ppo.epochs = 1;
        config.network.hidden = vec![16];
        config.network.squash = settings.continuous();
        change(&mut config);
        let mut trainer = Trainer::new(&testing::gpu(), &environment, &config).unwrap();
        trainer.train(|_| ()).unwrap();
        let mut weights = trainer.weights().unwrap();
        let head = format!("actor.{}.weight", config.network.hidden.len());
        for tensor in trainer.layout().tensors.iter().filter(|tensor| tensor.name.ends_with(&head)) {
            for row in 0..tensor.shape[0] {
                let first = tensor.first + row * tensor.stride;
                weights[first..first + tensor.shape[1]].iter_mut().for_each(|weight| *weight *= 100.0);
            }
        }
        let market = MarketMetadata {
            settings: settings.clone(),
            scaling: data.scaling().clone(),
            train_from: candles.timestamps[data.first_bar()],
            train_to: candles.timestamps[TRAIN - 1],
            test_from: candles.timestamps[TRAIN],
            bars: None,
        };
        let moments = trainer.observation_moments().unwrap();
        trainer.policy_of(weights, moments).unwrap().with_market(market).unwrap()
    }

    /// Compares both engines over the last bars; returns the decisions that differ from those of the first policy alone.
    fn compare(&self, name: &str, members: &[Policy], tolerance: f64) -> usize {
        let gpu = testing::gpu();
        let ensemble = Ensemble::new(members.to_vec()).unwrap();
        let bars = self.candles.bars() - TRADED..self.candles.bars();
        let targets = ensemble.targets(&gpu, &self.data, &bars).unwrap();
        let mut live = Live::of_ensemble(&gpu, &ensemble).unwrap();
        live.warm_up(&self.candles.slice(0..bars.start).unwrap(), &ExtraFeatures::default()).unwrap();
        let mut alone: Vec<_> = members.iter().map(|policy| policy.state(1).unwrap()).collect();
        let mask = self.settings.mask();
        let (mut changes, mut largest) = (0, 0f64);
        for (row, bar) in bars.take(targets.nrows()).enumerate() {
            let time = self.candles.timestamps[bar];
            let mut now = self.candles.live_bars(bar);
            let found = live.decide(time, &mut now, &[], None).unwrap().unwrap().targets.clone();
            for (found, target) in found.iter().zip(targets.row(row)) {
                largest = largest.max((found - target).abs());
                assert!((found - target).abs() <= tolerance, "{name}, bar {bar}: {found} and {target}");
            }
            // All policies observe the account of the ensemble.
            let masks = vec![mask; found.len()];
            let own: Vec<_> = members
                .iter()
                .zip(&mut alone)
                .map(|(policy, state)| {
                    policy.act(state, live.observations(), &masks, ActionMode::Greedy).unwrap();
                    policy.probabilities(state).to_vec()
                })
                .collect();
            if !self.settings.continuous() {
                for (agent, target) in found.iter().enumerate() {
                    let expected = self.most_probable(&own, agent);
                    assert_eq!(*target, expected, "{name}, bar {bar}, instrument {agent}");
                    changes += usize::from(*target != self.most_probable(&own[..1], agent));
                }
            }
        }
        println!("{name}: {} decisions equal within {largest:e}, {changes} not those of one", targets.len());
        changes
    }

    /// The position of the highest mean of log-probabilities, which differ from logits by a constant, in f64.
    fn most_probable(&self, own: &[Vec<f32>], agent: usize) -> f64 {
        let positions = &self.settings.positions;
        let mean = |option: usize| {
            own.iter().map(|all| f64::from(all[agent * positions.len() + option]).ln()).sum::<f64>()
        };
        let allowed = (0..positions.len()).filter(|option| positions[*option] >= 0.0);
        positions[allowed.max_by(|a, b| mean(*a).total_cmp(&mean(*b))).unwrap()]
    }
}

#[test]
fn both_engines_decide_the_same_by_the_mean_of_logits() {
    let market = Market::new(ActionSpace::Positions);
    let plain: fn(&mut Config) = |_| ();
    let gru: fn(&mut Config) = |config| config.network.recurrent = true;
    let separate: fn(&mut Config) = |config| {
        config.network.networks = Sharing::Separate;
        config.network.observation_norm = true;
    };
    let half: fn(&mut Config) = |config| {
        config.device.precision = Precision::F16;
        config.network.hidden = vec![24, 16];
    };
    for (name, seeds) in [
        ("feed-forward", &[plain, plain, plain][..]),
        ("GRU", &[gru, gru]),
        ("separate and normalised", &[separate, separate]),
        ("of several kinds", &[gru, separate, half]),
    ] {
        let members: Vec<_> = (1..).zip(seeds).map(|(seed, change)| market.policy(seed, *change)).collect();
        let changes = market.compare(name, &members, 0.0);
        assert!(changes > 20, "{name}: {changes} decisions are not those of the first policy");
    }
}

#[test]
fn both_engines_take_the_mean_of_continuous_actions() {
    let market = Market::new(ActionSpace::Weights);
    let members = [1, 2].map(|seed| market.policy(seed, |_| ()));
    market.compare("continuous", &members, 1e-4);
}

#[test]
fn an_ensemble_of_a_policy_with_itself_is_the_policy() {
    let gpu = testing::gpu();
    for actions in [ActionSpace::Positions, ActionSpace::Weights] {
        let market = Market::new(actions);
        let policy = market.policy(4, |config| config.network.recurrent = true);
        let bars = market.candles.bars() - TRADED..market.candles.bars();
        let expected = policy.targets(&gpu, &market.data, &bars).unwrap();
        for count in [1, 2, 3] {
            let ensemble = Ensemble::new(vec![policy.clone(); count]).unwrap();
            assert_eq!(ensemble.targets(&gpu, &market.data, &bars).unwrap(), expected, "{count} times");
        }
        let decide = |mut live: Live| {
            live.warm_up(&market.candles.slice(0..bars.start).unwrap(), &ExtraFeatures::default()).unwrap();
            let decide = |bar: usize| {
                let time = market.candles.timestamps[bar];
                live.decide(time, &mut market.candles.live_bars(bar), &[], None).unwrap().unwrap().clone()
            };
            bars.clone().take(60).map(decide).collect::<Vec<_>>()
        };
        let alone = decide(Live::new(&gpu, &policy).unwrap());
        let ensemble = Ensemble::new(vec![policy.clone(); 3]).unwrap();
        assert_eq!(decide(Live::of_ensemble(&gpu, &ensemble).unwrap()), alone);
    }
}

#[test]
fn runs_are_backtested_together() {
    let place = Workplace::new();
    place.trained("one");
    place.trained("copy");
    succeeded(&place.train(DEMO, "two", &["--seed", "9"]));
    let together = |runs: &[&str], more: &[&str]| {
        let runs = runs.iter().flat_map(|run| ["--run", run]);
        let arguments: Vec<_> = ["backtest", "--data", DEMO].into_iter().chain(runs).collect();
        place.run(&[&arguments, more].concat())
    };
    refused(&together(&["one", "two"], &[]), &["--out"]);
    refused(&together(&["one", "one"], &["--out", "results"]), &["--run one", "named twice"]);
    refused(&together(&["one", "two"], &["--out", "copy"]), &["copy holds another run", "--out"]);
    let output = together(&["one", "two"], &["--out", "results"]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("Verdict   ") && said.contains("In sample, on the bars it was trained on"),
        "{said}"
    );
    let page = std::fs::read_to_string(place.path("results/report.html")).unwrap();
    let seed = ["one (seed 1), two (seed 9)", "Ensemble of one, two", "the mean of their logits decides"];
    seed.iter().for_each(|text| assert!(page.contains(text), "{text}"));
    let ledger = std::fs::read_to_string(place.path("phalanx-trials.jsonl")).unwrap();
    assert!(ledger.lines().count() == 1 && ledger.contains("\"run\":\"one + two\""), "{ledger}");

    // With its copy a run trades the account that it trades alone.
    succeeded(&together(&["one", "copy"], &["--out", "twice"]));
    succeeded(&place.backtest(DEMO, "one", &["--out", "alone"]));
    for file in ["equity.csv", "trades.csv"] {
        let read = |folder: &str| std::fs::read(place.path(folder).join(file)).unwrap();
        assert!(read("twice") == read("alone"), "{file}");
    }
    let named: Vec<_> = ["metrics.json", "equity.csv", "trades.csv", "report.html", "trial.json"]
        .iter()
        .map(|file| place.path("twice").join(file).exists())
        .collect();
    assert_eq!(named, [true; 5]);
}

#[test]
fn runs_that_cannot_decide_together_are_refused() {
    let place = Workplace::new();
    place.trained("one");
    for (name, sets, wanted) in [
        ("long", ["--set", "market.shorting=false"], "its `market.shorting` is false instead of true"),
        (
            "early",
            ["--set", "data.train_fraction=0.5"],
            "its features are scaled by statistics of the bars from",
        ),
    ] {
        succeeded(&place.train(DEMO, name, &sets));
        let arguments = ["backtest", "--data", DEMO, "--run", "one", "--run", name, "--out", "results"];
        let place_of_error = format!("--run {name} cannot decide together with one: ");
        refused(&place.run(&arguments), &[&place_of_error, wanted]);
        assert!(!place.path("results").exists());
    }
}
