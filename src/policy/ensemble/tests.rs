use super::*;
use crate::mappo::Config;
use crate::model::initial_weights;
use crate::nn::{Activation, Sharing};
use crate::policy::{ActionSpec, ModelMetadata};
use crate::random::Stream;

const ENVIRONMENTS: usize = 200;

/// A policy of two agents with five features, with weights of a seed.
fn policy(seed: u64, actions: ActionSpec, change: impl FnOnce(&mut ModelMetadata)) -> Policy {
    let mut config = Config::default();
    config.network.hidden = vec![12];
    let mut metadata = ModelMetadata::of_training(&config, [2, 5, 0], actions);
    change(&mut metadata);
    let layout = metadata.layout().unwrap();
    let mut weights = initial_weights(&layout, Activation::Relu, seed);
    let mut random = Stream::new(seed, 2);
    weights.iter_mut().for_each(|weight| *weight += 0.4 * random.normal() as f32);
    Policy::new(metadata, weights).unwrap()
}

fn discrete(choices: &[u32]) -> ActionSpec {
    ActionSpec::Discrete { choices: choices.to_vec() }
}

fn continuous(squashed: bool) -> ActionSpec {
    ActionSpec::Continuous { numbers: 2, squashed }
}

fn observations(random: &mut Stream) -> Vec<f32> {
    (0..ENVIRONMENTS * 10).map(|_| random.normal() as f32).collect()
}

/// The outputs of the policies by themselves, and then those of the ensemble with its actions, for three decisions.
fn outputs(members: &[Policy], masks: &[u32]) -> Vec<(Vec<Vec<f32>>, Vec<f32>, Actions)> {
    let ensemble = Ensemble::new(members.to_vec()).unwrap();
    let mut state = ensemble.state(ENVIRONMENTS).unwrap();
    let mut alone: Vec<_> = members.iter().map(|policy| policy.state(ENVIRONMENTS).unwrap()).collect();
    let mut random = Stream::new(9, 1);
    let decisions = (0..3).map(|_| {
        let observations = observations(&mut random);
        let own = members.iter().zip(&mut alone).map(|(policy, state)| {
            policy.act(state, &observations, masks, ActionMode::Greedy).unwrap();
            state.outputs.clone()
        });
        let own = own.collect();
        let actions = ensemble.act(&mut state, &observations, masks, ActionMode::Greedy).unwrap().clone();
        (own, state.members[0].outputs.clone(), actions)
    });
    decisions.collect()
}

/// The option with the highest mean of logits in f64, of those that are allowed.
fn best(own: &[Vec<f32>], row: usize, options: usize, mask: u32) -> u32 {
    let mean = |option: usize| {
        own.iter().map(|outputs| f64::from(outputs[row * options + option])).sum::<f64>() / own.len() as f64
    };
    let allowed = (0..options).filter(|option| mask & (1 << option) != 0);
    allowed.max_by(|a, b| mean(*a).total_cmp(&mean(*b))).unwrap() as u32
}

#[test]
fn the_action_is_that_of_the_mean_logits_and_masked_ones_stay_masked() {
    let seeds = |count: u64| -> Vec<Policy> {
        (0..count).map(|seed| policy(seed + 1, discrete(&[4]), |_| ())).collect()
    };
    let recurrent = |seed| policy(seed, discrete(&[4]), |metadata| metadata.network.recurrent = true);
    let separate = policy(8, discrete(&[4]), |metadata| metadata.network.networks = Sharing::Separate);
    let wide = policy(9, discrete(&[4]), |metadata| metadata.network.hidden = vec![20, 7]);
    let mixed = vec![recurrent(5), separate, wide, recurrent(6)];
    let mut random = Stream::new(7, 1);
    let masks: Vec<u32> = (0..ENVIRONMENTS * 2).map(|_| 1 + (random.uniform() * 15.0) as u32).collect();
    let mut other = 0;
    for (members, masks) in [(seeds(2), &masks[..]), (seeds(3), &[]), (mixed, &masks)] {
        for (own, _, actions) in outputs(&members, masks) {
            for (row, action) in actions.raw().iter().enumerate() {
                let mask = masks.get(row).copied().unwrap_or(15);
                assert_eq!(*action, best(&own, row, 4, mask), "row {row} of {}", members.len());
                other += usize::from(*action != best(&own[..1], row, 4, mask));
            }
        }
    }
    assert!(other > 100, "the ensembles decide as their first policies");
}

#[test]
fn continuous_actions_have_the_mean_before_they_are_squashed() {
    for squashed in [false, true] {
        let members = [1, 2, 3].map(|seed| policy(seed, continuous(squashed), |_| ()));
        for (own, _, actions) in outputs(&members, &[]) {
            for row in 0..ENVIRONMENTS * 2 {
                for (number, found) in actions.numbers(row / 2, row % 2).enumerate() {
                    let mean =
                        own.iter().map(|outputs| f64::from(outputs[row * 4 + number])).sum::<f64>() / 3.0;
                    let expected = if squashed { mean.tanh() } else { mean };
                    assert!((f64::from(found) - expected).abs() < 1e-5, "{found} for {expected}");
                }
            }
        }
    }
}

#[test]
fn an_ensemble_of_equal_policies_is_the_policy() {
    let recurrent = |metadata: &mut ModelMetadata| metadata.network.recurrent = true;
    for single in [
        policy(1, discrete(&[3, 2]), |_| ()),
        policy(2, discrete(&[3]), recurrent),
        policy(3, continuous(true), |_| ()),
    ] {
        for count in [1, 2, 3, 5] {
            let ensemble = Ensemble::new(vec![single.clone(); count]).unwrap();
            let mut state = ensemble.state(ENVIRONMENTS).unwrap().with_seed(5);
            let mut own = single.state(ENVIRONMENTS).unwrap().with_seed(5);
            let mut random = Stream::new(1, 1);
            for decision in 0..4 {
                if decision == 2 {
                    state.reset(3);
                    own.reset(3);
                }
                let observations = observations(&mut random);
                let expected = single.act(&mut own, &observations, &[], ActionMode::Sampled).unwrap();
                let found = ensemble.act(&mut state, &observations, &[], ActionMode::Sampled).unwrap();
                assert_eq!(found, expected, "{count} policies");
                assert_eq!(ensemble.probabilities(&mut state), single.probabilities(&mut own));
                let memory = own.memory();
                assert!(state.members().iter().all(|member| member.memory() == memory));
            }
        }
    }
}

#[test]
fn the_first_difference_is_named() {
    let first =
        policy(1, discrete(&[3]), |metadata| metadata.features = "abcde".chars().map(String::from).collect());
    let named = |names: &str| -> Vec<String> { names.chars().map(String::from).collect() };
    let with = |change: fn(&mut ModelMetadata)| {
        policy(2, discrete(&[3]), |metadata| {
            metadata.features = "abcde".chars().map(String::from).collect();
            change(metadata);
        })
    };
    for (other, wanted) in [
        (
            with(|metadata| (metadata.network.agents, metadata.network.agent_identity) = (3, false)),
            "it has 3 agents instead of 2",
        ),
        (
            with(|metadata| (metadata.network.obs_dim, metadata.features) = (4, vec![])),
            "it has 4 features instead of 5",
        ),
        (
            with(|metadata| metadata.features = vec![]),
            "it has no names for its features instead of the features a, b",
        ),
        (with(|metadata| metadata.features[3] = "x".into()), "its feature 4 is `x` instead of `d`"),
        (
            policy(2, discrete(&[2, 2]), |metadata| metadata.features = named("abcde")),
            "its actions are choices of 2, 2 options instead of choices of 3 options",
        ),
        (
            policy(2, continuous(true), |metadata| metadata.features = named("abcde")),
            "its actions are 2 real numbers squashed by tanh instead of",
        ),
    ] {
        let error = Ensemble::new(vec![first.clone(), first.clone(), other]).unwrap_err().to_string();
        assert!(error.contains("policy 3 of the ensemble does not fit the first: "), "{error}");
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let error = Ensemble::new(vec![]).unwrap_err().to_string();
    assert!(error.contains("at least one policy"), "{error}");
    assert_eq!(Ensemble::difference(&first, &with(|metadata| metadata.network.recurrent = true)), None);
}

#[cfg(feature = "market")]
#[test]
fn differences_of_markets_are_named() {
    use crate::env::TradingSettings;
    use crate::market::ScalingStatistics;
    use crate::policy::{MarketMetadata, TrainingBars};
    use jiff::SignedDuration;
    use jiff::civil::date;

    let market = MarketMetadata {
        settings: TradingSettings::default(),
        scaling: ScalingStatistics {
            features: ["a", "b", "c"].map(String::from).to_vec(),
            symbols: ["AAA", "BBB"].map(String::from).to_vec(),
            moments: vec![[0.5, 2.0]; 6],
        },
        train_from: date(2020, 1, 1).at(0, 0, 0, 0),
        train_to: date(2021, 1, 1).at(0, 0, 0, 0),
        test_from: date(2021, 1, 2).at(0, 0, 0, 0),
        bars: Some(TrainingBars { spacing: SignedDuration::from_hours(24), volume: true }),
    };
    let of = |seed, change: fn(&mut MarketMetadata)| {
        let mut market = market.clone();
        change(&mut market);
        policy(seed, discrete(&[3]), |_| ()).with_market(market).unwrap()
    };
    let first = of(1, |_| ());
    for (other, wanted) in [
        (policy(2, discrete(&[3]), |_| ()), "it is not the policy of a market"),
        (of(2, |market| market.scaling.symbols[1] = "CCC".into()), "it trades AAA, CCC instead of AAA, BBB"),
        (of(2, |market| market.settings.shorting = false), "its `market.shorting` is false instead of true"),
        (
            of(2, |market| market.settings.positions = vec![-0.5, 0.0, 1.0]),
            "its `market.positions` is [-0.5,0.0,1.0] instead of [-1.0,0.0,1.0]",
        ),
        (
            of(2, |market| market.settings.commission_bps = 9.0),
            "its `market.commission_bps` is 9.0 instead of 5.0",
        ),
        (of(2, |market| market.scaling.features[2] = "x".into()), "its feature 3 is `x` instead of `c`"),
        (
            of(2, |market| market.bars.as_mut().unwrap().spacing = SignedDuration::from_hours(1)),
            "it was trained on bars 1h apart instead of 24h",
        ),
        (
            of(2, |market| market.bars.as_mut().unwrap().volume = false),
            "it was trained on candles without volume instead of candles with it",
        ),
        (
            of(2, |market| {
                (market.scaling.moments[4], market.train_from) = ([0.6, 2.0], date(2019, 1, 1).at(0, 0, 0, 0))
            }),
            "its features are scaled by statistics of the bars from 2019-01-01",
        ),
    ] {
        let difference = Ensemble::difference(&first, &other).unwrap_or_default();
        assert!(difference.contains(wanted), "{wanted}: {difference}");
    }
    // Episodes and rewards are of the training; another device rounds statistics otherwise.
    let seed = of(2, |market| {
        market.settings.episode_length = 64;
        market.settings.reward_scale = 1.0;
        market.scaling.moments[3] = [0.500_01, 2.000_01];
    });
    assert_eq!(Ensemble::difference(&first, &seed), None);
}
