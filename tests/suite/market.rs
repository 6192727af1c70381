//! The market on the device: its accounting against the f64 ledger, and the absence of look-ahead in observations and rewards.

use ndarray::Array2;
use phalanx::env::Storage;
use phalanx::env::ledger::{Ledger, NextBar};
use phalanx::env::{EnvRecording, Environment, Episodes, RolloutBuffers, Trading, TradingSettings};
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicators, Series};
use phalanx::mappo::{Activation, CriticInput, Precision, Sharing};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};
use phalanx::model::{Layout, Shape};
use phalanx::policy::{ActionSpec, MarketMetadata, ModelMetadata, NetworkMetadata, Policy};
use phalanx::random::Stream;

use crate::{common, testing};

pub const ENVS: u32 = 4;

/// A rollout of the market on test buffers.
pub struct Stage {
    gpu: Gpu,
    recorded: EnvRecording,
    pub observations: wgpu::Buffer,
    actions: wgpu::Buffer,
    pub rewards: wgpu::Buffer,
    dones_and_masks: wgpu::Buffer,
    episodes: wgpu::Buffer,
    pub agents: usize,
    pub steps: usize,
    pub obs_dim: usize,
}

impl Stage {
    pub fn new(
        gpu: &Gpu,
        data: &MarketData,
        settings: &TradingSettings,
        episodes: &Episodes,
        steps: u32,
    ) -> Self {
        let environment = Trading::new(data, settings, episodes).unwrap();
        let spec = environment.spec();
        let slots = steps + 1 + environment.truncations(steps);
        let zeros = |words: u32| gpu.upload("zeros", &vec![0u32; words as usize]).unwrap();
        let rows = spec.agents * ENVS;
        let [observations, actions, rewards, dones_and_masks, counters] =
            [slots * rows * spec.obs_dim, steps * rows, steps * rows, steps * ENVS + slots * rows, 4 * ENVS]
                .map(zeros);
        let rollout = RolloutBuffers {
            envs: ENVS,
            steps,
            seed: 5,
            storage: Storage::F32,
            state_dim: 0,
            first_state: 0,
            observations: &observations,
            actions: &actions,
            rewards: &rewards,
            dones_and_masks: &dones_and_masks,
            episodes: &counters,
        };
        let recorded = environment.record(gpu, &rollout).unwrap();
        Self {
            gpu: gpu.clone(),
            recorded,
            observations,
            actions,
            rewards,
            dones_and_masks,
            episodes: counters,
            agents: spec.agents as usize,
            steps: steps as usize,
            obs_dim: spec.obs_dim as usize,
        }
    }

    pub fn run(&self, actions: &[u32]) {
        self.gpu.write(&self.actions, 0, bytemuck::cast_slice(actions)).unwrap();
        let mut recorder = Recorder::new(&self.gpu);
        recorder.run(&self.recorded.reset).unwrap();
        for step in &self.recorded.steps {
            recorder.encode(step).unwrap();
        }
        recorder.submit().unwrap();
    }

    pub fn floats(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        self.gpu.read(buffer).unwrap()
    }

    pub fn at(&self, step: usize, agent: usize, env: usize) -> usize {
        (step * self.agents + agent) * ENVS as usize + env
    }

    pub fn observed(&self, all: &[f32], slot: usize, feature: usize, agent: usize, env: usize) -> f32 {
        all[((slot * self.agents + agent) * self.obs_dim + feature) * ENVS as usize + env]
    }
}

pub fn data(gpu: &Gpu, candles: &Candles, train: usize) -> MarketData {
    MarketData::new(gpu, candles, &ExtraFeatures::default(), &Scaling::Fit(0..train)).unwrap()
}

/// Random actions `[step][agent][env]`; every third step repeats the previous one, to cover held positions.
pub fn random_actions(stage: &Stage, choices: u32) -> Vec<u32> {
    let mut stream = Stream::new(11, 2);
    let mut actions = vec![0u32; stage.steps * stage.agents * ENVS as usize];
    let row = stage.agents * ENVS as usize;
    for i in 0..actions.len() {
        let drawn = (stream.uniform() * f64::from(choices)) as u32;
        actions[i] = if i / row % 3 == 2 { actions[i - row] } else { drawn };
    }
    actions
}

pub fn column(prices: &Array2<f64>, bar: usize) -> Vec<f64> {
    prices.column(bar).to_vec()
}

#[test]
fn money_is_conserved_and_costs_are_exact_over_random_actions() {
    for gpu in testing::both_classes() {
        // The last market falls to a ten-millionth of its price: accounting must stay exact to the cent.
        for (commission, slippage, drift) in [(0.0, 0.0, 0.0), (7.5, 3.0, 0.0), (7.5, 3.0, -0.023)] {
            let mut stream = Stream::new(8, 3);
            let candles = common::candles(3, 700, |i, _| drift + 0.012 * (i + 1) as f64 * stream.normal());
            let data = data(&gpu, &candles, 500);
            let settings = TradingSettings {
                commission_bps: commission,
                slippage_bps: slippage,
                positions: vec![-1.0, 0.0, 1.0, 0.5],
                bankruptcy_level: 0.0,
                own_reward_weight: 0.0,
                reward_scale: 1.0,
                ..Default::default()
            };
            let bars = data.first_bar()..candles.bars();
            let steps = bars.len() - 1;
            let stage = Stage::new(&gpu, &data, &settings, &Episodes::Whole(bars.clone()), steps as u32);
            let actions = random_actions(&stage, 4);
            stage.run(&actions);
            let rewards = stage.floats(&stage.rewards);
            let seen = stage.floats(&stage.observations);
            for env in 0..ENVS as usize {
                let mut ledger = Ledger::new(3, 1.0, 0.0, settings.costs(&candles.symbols).unwrap()).unwrap();
                let mut equity = 0.0;
                for step in 0..steps {
                    let bar = bars.start + step;
                    let targets: Vec<f64> = (0..3)
                        .map(|a| settings.positions[actions[stage.at(step, a, env)] as usize])
                        .collect();
                    let close = column(&candles.close, bar);
                    let (open_next, close_next) =
                        (column(&candles.open, bar + 1), column(&candles.close, bar + 1));
                    let expected =
                        ledger.step(&targets, &NextBar::new(&close, &open_next, &close_next)).unwrap();
                    let got = f64::from(rewards[stage.at(step, 0, env)]);
                    assert!(
                        (got - expected.log_return).abs() < 1e-6,
                        "bar {bar}: {got} for {}",
                        expected.log_return
                    );
                    equity += got;
                    let slot = if step + 1 == steps { steps + 1 } else { step + 1 };
                    for (agent, close) in close_next.iter().enumerate() {
                        let level = stage.observed(&seen, slot, stage.obs_dim - 2, agent, env);
                        assert_eq!(f64::from(level), ledger.level()[agent]);
                        let weight = f64::from(stage.observed(&seen, slot, stage.obs_dim - 1, agent, env));
                        let expected = ledger.quantity()[agent] * close * 3.0 / ledger.equity();
                        assert!((weight - expected).abs() < 1e-5 * expected.abs().max(1.0));
                    }
                }
                let conserved = (equity.exp() / ledger.equity() - 1.0).abs();
                assert!(conserved < 1e-6, "{conserved:e} of the money appeared or vanished in {steps} bars");
                let counted = stage.floats(&stage.episodes);
                assert!(
                    (f64::from(counted[env]) - ledger.equity().ln()).abs() < 1e-5,
                    "the episode's return"
                );
                assert_eq!(counted[ENVS as usize + env], 1.0);
            }
            let dones_and_masks: Vec<u32> = gpu.read(&stage.dones_and_masks).unwrap();
            let ends: Vec<usize> =
                (0..steps).filter(|step| dones_and_masks[step * ENVS as usize] != 0).collect();
            assert_eq!(ends, [steps - 1], "one episode, truncated at its end");
            assert_eq!(dones_and_masks[(steps - 1) * ENVS as usize], 2);
        }
    }
}

#[test]
fn features_match_their_definitions() {
    let gpu = testing::gpu();
    // Falls by a factor of a thousand, to test the effect of the price level.
    let mut stream = Stream::new(14, 3);
    let candles = common::candles(2, 240, |_, _| -0.03 + 0.01 * stream.normal());
    let fitted = data(&gpu, &candles, 200);
    let mut raw = fitted.scaling().clone();
    raw.moments.iter_mut().for_each(|moments| *moments = [0.0, 1.0]);
    let market = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Given(raw)).unwrap();
    let got: Vec<f32> = gpu.read(market.buffer()).unwrap();
    let series = Series::upload(&gpu, candles.high.view(), candles.low.view(), candles.close.view()).unwrap();
    let panel = Indicators::classic(&gpu).panel(&series).unwrap();
    Recorder::new(&gpu).run(&panel.commands()).unwrap();
    let values = panel.read(&gpu).unwrap();
    let volume = candles.volume.as_ref().unwrap();
    let value = |name: &str, at: [usize; 2]| values.get(name).unwrap()[at];
    for i in 0..2 {
        for bar in market.first_bar()..candles.bars() {
            let at = [i, bar];
            let back = |by: usize| candles.close[at] / candles.close[[i, bar - by]] - 1.0;
            let (low, close) = (candles.low[at], candles.close[at]);
            let range = candles.high[at] - low;
            let (upper, lower) = (value("bb_upper", at), value("bb_lower", at));
            let mean_volume = (bar - 19..=bar).map(|b| volume[[i, b]]).sum::<f64>() / 20.0;
            let expected = [
                back(1),
                back(5),
                back(20),
                candles.open[at] / candles.close[[i, bar - 1]] - 1.0,
                range / close,
                (close - low) / range - 0.5,
                value("rsi", at) / 100.0 - 0.5,
                value("macd", at) / close,
                value("macd_hist", at) / close,
                (close - lower) / (upper - lower) - 0.5,
                (upper - lower) / value("bb_middle", at),
                value("atr", at) / close,
                value("mom", at) / close,
                value("stoch_k", at) / 100.0 - 0.5,
                value("stoch_d", at) / 100.0 - 0.5,
                volume[at] / mean_volume - 1.0,
            ];
            for (f, expected) in expected.iter().enumerate() {
                let got = f64::from(got[(bar * 2 + i) * market.features() + f]);
                let name = phalanx::market::FEATURES[f];
                let error = (got - expected.clamp(-5.0, 5.0)).abs();
                assert!(error < 2e-6, "{name} of {i} at bar {bar}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn rewards_mix_own_and_portfolio_returns_and_penalise_drawdown() {
    for gpu in testing::both_classes() {
        let mut stream = Stream::new(9, 3);
        let candles = common::candles(2, 200, |_, _| 0.02 * stream.normal());
        let data = data(&gpu, &candles, 150);
        let settings = TradingSettings {
            own_reward_weight: 0.3,
            reward_scale: 10.0,
            drawdown_penalty: 0.7,
            bankruptcy_level: 0.0,
            ..Default::default()
        };
        let bars = data.first_bar()..candles.bars();
        let steps = bars.len() - 1;
        let stage = Stage::new(&gpu, &data, &settings, &Episodes::Whole(bars.clone()), steps as u32);
        let actions = random_actions(&stage, 3);
        stage.run(&actions);
        let rewards = stage.floats(&stage.rewards);
        let mut ledger = Ledger::new(2, 1.0, 0.0, settings.costs(&candles.symbols).unwrap()).unwrap();
        let mut peak = 1.0f64;
        for step in 0..steps {
            let bar = bars.start + step;
            let before = 1.0 - ledger.equity() / peak;
            let targets: Vec<f64> =
                (0..2).map(|a| settings.positions[actions[stage.at(step, a, 1)] as usize]).collect();
            let (close, open) = (column(&candles.close, bar), column(&candles.open, bar + 1));
            let expected = ledger
                .step(&targets, &NextBar::new(&close, &open, &column(&candles.close, bar + 1)))
                .unwrap();
            peak = peak.max(ledger.equity());
            let deeper = (1.0 - ledger.equity() / peak - before).max(0.0);
            for agent in 0..2 {
                let mixed = 0.3 * expected.own_log_return[agent] + 0.7 * expected.log_return;
                let reward = 10.0 * (mixed - 0.7 * deeper);
                let got = f64::from(rewards[stage.at(step, agent, 1)]);
                assert!((got - reward).abs() < 1e-5, "bar {bar} agent {agent}: {got} for {reward}");
            }
        }
    }
}

#[test]
fn a_bankrupt_account_terminates_and_a_new_episode_starts() {
    for gpu in testing::both_classes() {
        // Prices rise by 8 % per bar: a short position loses more than the account.
        let candles = common::candles(1, 120, |_, _| 0.08);
        let data = data(&gpu, &candles, 100);
        let settings = TradingSettings { bankruptcy_level: 0.2, ..Default::default() };
        let bars = data.first_bar()..candles.bars();
        let steps = 40;
        let stage = Stage::new(&gpu, &data, &settings, &Episodes::Whole(bars.clone()), steps);
        stage.run(&vec![0; stage.steps * ENVS as usize]);
        let mut ledger = Ledger::new(1, 1.0, 0.2, settings.costs(&candles.symbols).unwrap()).unwrap();
        let mut length = 0;
        while !ledger.bankrupt() {
            let bar = bars.start + length;
            let (open, next) = (column(&candles.open, bar + 1), column(&candles.close, bar + 1));
            ledger.step(&[-1.0], &NextBar::new(&column(&candles.close, bar), &open, &next)).unwrap();
            length += 1;
        }
        let dones_and_masks: Vec<u32> = gpu.read(&stage.dones_and_masks).unwrap();
        let ends: Vec<usize> =
            (0..stage.steps).filter(|step| dones_and_masks[step * ENVS as usize] != 0).collect();
        assert!(length < 20 && ends.len() >= 2, "ruin after {length} bars, ends {ends:?}");
        assert!(
            ends.iter().enumerate().all(|(n, end)| *end == (n + 1) * length - 1),
            "{ends:?} every {length} bars"
        );
        assert!(
            ends.iter().all(|end| dones_and_masks[end * ENVS as usize] == 1),
            "terminated, not truncated"
        );
        let seen = stage.floats(&stage.observations);
        let slot = length;
        assert_eq!(
            stage.observed(&seen, slot, stage.obs_dim - 2, 0, 0),
            0.0,
            "a fresh account holds nothing"
        );
    }
}

#[test]
fn shorting_off_masks_short_actions_and_episodes_stay_within_their_bars() {
    for gpu in testing::both_classes() {
        let candles = common::candles(2, 150, |_, bar| 0.001 * (bar % 7) as f64);
        let data = data(&gpu, &candles, 100);
        let settings = TradingSettings { shorting: false, episode_length: 5, ..Default::default() };
        let first = data.first_bar();
        let stage = Stage::new(&gpu, &data, &settings, &Episodes::Random(first..first + 12), 23);
        stage.run(&vec![1; stage.steps * 2 * ENVS as usize]);
        let dones_and_masks: Vec<u32> = gpu.read(&stage.dones_and_masks).unwrap();
        let masks = &dones_and_masks[stage.steps * ENVS as usize..][..(stage.steps + 1) * 2 * ENVS as usize];
        assert!(masks.iter().all(|mask| *mask == 0b110), "actions are short, flat, long");
        for env in 0..ENVS as usize {
            let ends: Vec<u32> =
                (0..stage.steps).map(|step| dones_and_masks[step * ENVS as usize + env]).collect();
            let expected: Vec<u32> =
                (0..23).map(|step| if step % 5 == 4 { 2 + step / 5 } else { 0 }).collect();
            assert_eq!(ends, expected);
        }
        // Observations belong to a bar within the range: the first feature, unscaled, is that bar's return.
        let seen = stage.floats(&stage.observations);
        let features: Vec<f32> = gpu.read(data.buffer()).unwrap();
        let known: Vec<f32> = (first..first + 12).map(|bar| features[bar * 2 * data.features()]).collect();
        let mut starts = std::collections::HashSet::new();
        for slot in 0..=stage.steps {
            for env in 0..ENVS as usize {
                let value = stage.observed(&seen, slot, 0, 0, env);
                let position = known.iter().position(|k| *k == value);
                assert!(position.is_some(), "slot {slot} env {env} sees a bar outside its range");
                if slot % 5 == 0 {
                    starts.insert(position);
                }
            }
        }
        assert!(starts.len() > 2, "episodes start at different bars");
    }
}

/// Bits of all observations and rewards on bars up to `until`.
fn history(gpu: &Gpu, candles: &Candles, until: usize) -> (Vec<u32>, Vec<u32>) {
    let data = data(gpu, candles, 100);
    let bars = data.first_bar()..candles.bars();
    let steps = (until - bars.start) as u32;
    let stage = Stage::new(gpu, &data, &TradingSettings::default(), &Episodes::Whole(bars), steps);
    stage.run(&random_actions(&stage, 3));
    let seen = stage.floats(&stage.observations);
    let slots = (stage.steps + 1) * stage.agents * stage.obs_dim * ENVS as usize;
    let rewards = stage.floats(&stage.rewards);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
    (bits(&seen[..slots]), bits(&rewards[..stage.steps * stage.agents * ENVS as usize]))
}

#[test]
fn later_candles_do_not_change_earlier_observations_or_rewards() {
    let gpu = testing::gpu();
    let mut stream = Stream::new(2, 3);
    let original = common::candles(2, 180, |_, _| 0.01 * stream.normal());
    let mut differs_later = 0;
    for until in [110, 133, 160] {
        let before = history(&gpu, &original, until);
        for change in 0..4 {
            let mut candles = original.clone();
            for bar in until + 1..candles.bars() {
                for i in 0..2 {
                    let factor = match change {
                        0 => 3.0,
                        1 => 0.01,
                        2 => 1.0 + 0.5 * ((bar * 7 + i) % 5) as f64,
                        _ => 1.0,
                    };
                    for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close]
                    {
                        prices[[i, bar]] *= factor;
                    }
                    if let (3, Some(volume)) = (change, &mut candles.volume) {
                        volume[[i, bar]] *= 1e6;
                    }
                }
            }
            assert!(
                before == history(&gpu, &candles, until),
                "bars after {until} reach back (change {change})"
            );
            if until + 5 < candles.bars() {
                let later = history(&gpu, &candles, until + 5) != history(&gpu, &original, until + 5);
                differs_later += usize::from(later);
            }
        }
    }
    assert!(differs_later >= 9, "the changes must show once their bars are reached: {differs_later}");
}

#[test]
fn statistics_come_from_the_training_bars_alone() {
    let gpu = testing::gpu();
    let mut stream = Stream::new(6, 3);
    let original = common::candles(2, 180, |_, _| 0.01 * stream.normal());
    let fitted = data(&gpu, &original, 120);
    let mut changed = original.clone();
    for bar in 120..180 {
        for prices in [&mut changed.open, &mut changed.high, &mut changed.low, &mut changed.close] {
            prices[[1, bar]] *= 50.0;
        }
    }
    assert_eq!(fitted.scaling(), data(&gpu, &changed, 120).scaling());
    let other = data(&gpu, &original, 150);
    assert_ne!(fitted.scaling(), other.scaling());
    let given = Scaling::Given(fitted.scaling().clone());
    let again = MarketData::new(&gpu, &original, &ExtraFeatures::default(), &given).unwrap();
    let bytes = |data: &MarketData| gpu.read::<u32>(data.buffer()).unwrap();
    assert!(bytes(&again) == bytes(&fitted));
    let mut renamed = original;
    renamed.symbols[1] = "XYZ".into();
    let error = MarketData::new(&gpu, &renamed, &ExtraFeatures::default(), &given).unwrap_err().to_string();
    assert!(error.contains("trained on the instruments S0, S1") && error.contains("S0, XYZ"), "{error}");
}

#[test]
fn a_bankrupt_policy_stays_flat() {
    let gpu = testing::gpu();
    let candles = common::candles(1, 120, |_, _| 0.08);
    let data = data(&gpu, &candles, 100);
    let market = MarketMetadata {
        settings: TradingSettings { bankruptcy_level: 0.2, ..Default::default() },
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[0],
        train_to: candles.timestamps[99],
        test_from: candles.timestamps[100],
        bars: None,
    };
    let metadata = ModelMetadata {
        version: "test".into(),
        network: NetworkMetadata {
            agents: 1,
            obs_dim: phalanx::env::observation_size(data.features()),
            state_dim: 0,
            hidden: vec![4],
            activation: Activation::Relu,
            input_norm: true,
            hidden_norm: true,
            recurrent: false,
            networks: Sharing::Shared,
            agent_identity: true,
            critic_input: CriticInput::Joint,
            precision: Precision::F32,
        },
        actions: ActionSpec::Discrete { choices: vec![3] },
        features: vec![],
        observation_moments: vec![],
        market: Some(market),
    };
    let shape = Shape {
        agents: 1,
        obs_dim: phalanx::env::observation_size(data.features()),
        actions: 3,
        hidden: vec![4],
        ..Shape::default()
    };
    let layout = Layout::new(&shape).unwrap();
    let mut weights = vec![0f32; layout.params as usize * 4];
    let bias = layout.tensors.iter().find(|tensor| tensor.name == "actor.1.bias").unwrap();
    weights[bias.first] = 1.0;
    assert!(Policy::new(metadata.clone(), weights[1..].to_vec()).is_err(), "a weight is missing");
    let policy = Policy::new(metadata, weights).unwrap();
    let targets = policy.targets(&gpu, &data, &(data.first_bar()..120)).unwrap();
    let decided = targets.iter().position(|target| *target == 0.0).unwrap();
    assert!((5..20).contains(&decided), "ruin after {decided} bars");
    assert!(targets.iter().take(decided).all(|target| *target == -1.0));
    assert!(targets.iter().skip(decided).all(|target| *target == 0.0), "{targets:?}");
}

#[test]
fn scaling_is_fitted_to_bars_that_exist() {
    let gpu = testing::gpu();
    let candles = common::candles(1, 120, |_, _| 0.01);
    let bars = candles.bars();
    let error =
        MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..bars + 1)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("0..{} end after the last of {bars} bars", bars + 1)), "{text}");
}
