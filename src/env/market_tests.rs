//! Invalid saved states are rejected, and the kernel stays within its buffers for any state.

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;

use super::validate;
use crate::env::bench::Bench;
use crate::env::{DeviceState, Environment, Episodes, State, Trading, TradingSettings};
use crate::gpu::Gpu;
use crate::market::{Candles, ExtraFeatures, MarketData, Scaling};
use crate::random::Stream;
use crate::testing::both_classes;

const ENVS: usize = 4;
const STEPS: usize = 6;
const LENGTH: u32 = 4;
const AGENTS: usize = 2;

/// Episodes of four steps that start at one of six bars and end before the data does.
fn environment(gpu: &Gpu) -> Trading {
    let bars = 140;
    let mut stream = Stream::new(3, 4);
    let mut close = Array2::from_elem((AGENTS, bars), 50.0);
    for ((_, bar), price) in close.indexed_iter_mut() {
        *price += bar as f64 * 0.1 + stream.uniform();
    }
    let start = date(2001, 1, 1).at(0, 0, 0, 0);
    let days = (0..bars).map(|bar| start.checked_add((bar as i64).days()).unwrap()).collect();
    let symbols = (0..AGENTS).map(|i| format!("S{i}")).collect();
    let (open, high, low) = (&close * 0.999, &close * 1.01, &close * 0.99);
    let volume = Some(Array2::from_elem((AGENTS, bars), 1e4));
    let candles = Candles::new(symbols, days, open, high, low, close, volume).unwrap();
    let scaling = Scaling::Fit(0..bars);
    let data = MarketData::new(gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
    let settings = TradingSettings { episode_length: LENGTH, ..TradingSettings::default() };
    let first = data.first_bar();
    Trading::new(&data, &settings, &Episodes::Random(first..first + LENGTH as usize + 6)).unwrap()
}

fn saved(bench: &Bench) -> &DeviceState {
    let State::Device(state) = &bench.recorded.state[0] else { panic!("expected device state") };
    state
}

#[test]
fn states_that_the_kernel_cannot_have_written_are_rejected() {
    let gpu = crate::testing::gpu();
    let mut bench = Bench::new(&gpu, &environment(&gpu), ENVS, STEPS as u32, 7);
    bench.run();
    let state = saved(&bench).clone();
    let words = bench.words(state.buffer());
    state.validate(&words).unwrap();
    let real = |value: f32| value.to_bits();
    let bar = words[4 * ENVS];
    for (field, value, wanted) in [
        (0, real(f32::NAN), "equity is NaN"),
        (0, real(0.1), ""),
        (0, real(0.05), "equity is 0.05"),
        (0, real(f32::INFINITY), "equity is inf"),
        (1, real(f32::NAN), "remainder of the equity is NaN"),
        (2, real(0.5), "peak of the equity is 0.5"),
        (3, real(f32::NEG_INFINITY), "return is -inf"),
        (4, 0, "bar is 0"),
        (4, u32::MAX, "bar is 4294967295"),
        (4, bar + 1_000_000, "bar is"),
        (5, LENGTH, "step of the episode is 4, expected 0 to 3"),
        (6, 0, "episode is 0"),
        (6, u32::MAX, "episode is 4294967295"),
        (7, 3, "truncated episodes is 3, expected 0 to 2"),
        (8, real(f32::NAN), "quantity of instrument 0 is NaN"),
        (11, real(0.3), "level of instrument 1 is 0.3"),
        (11, real(f32::NAN), "level of instrument 1 is NaN"),
    ] {
        let mut forged = words.clone();
        forged[field * ENVS + 1] = value;
        match (state.validate(&forged), wanted) {
            (Ok(()), "") => {}
            (result, _) => {
                let error = result.unwrap_err();
                assert!(error.contains("environment 1: ") && error.contains(wanted), "{wanted}: {error}");
            }
        }
    }
    // Each value is valid, but not their combination.
    let mut forged = words.clone();
    let first = (0..ENVS).map(|env| words[4 * ENVS + env] - words[5 * ENVS + env]).min().unwrap();
    forged[4 * ENVS] = bar.min(first);
    forged[5 * ENVS] = 3;
    let error = state.validate(&forged).unwrap_err();
    assert!(error.contains("cannot be reached in step 3"), "{error}");
    for length in [0, words.len() - 1] {
        assert!(state.validate(&words[..length]).unwrap_err().contains("words, expected"));
    }
    assert!(validate(&super::Parameters::default(), &words).is_err());
}

/// Rewards, observations, ends and state after a rollout with one constant action. `change` may overwrite a field of the state, in
/// all environments, before each step.
fn outcome(
    gpu: &Gpu,
    market: &Trading,
    change: impl Fn(usize) -> Option<(usize, u32)>,
    action: u32,
) -> [Vec<u32>; 4] {
    let mut bench = Bench::new(gpu, market, ENVS, STEPS as u32, 7);
    bench.act(&[action; STEPS * AGENTS * ENVS]);
    for step in 0..STEPS {
        if let Some((field, value)) = change(step) {
            let words = vec![value; ENVS];
            bench.gpu.write(bench.state(), (field * ENVS * 4) as u64, bytemuck::cast_slice(&words)).unwrap();
        }
        bench.recorder.run(&bench.recorded.steps[step]).unwrap();
    }
    let buffers = [&bench.rewards, &bench.observations, &bench.dones_and_masks, bench.state()];
    buffers.map(|buffer| bench.words(buffer))
}

/// An unclamped index would read another bar or level, or write to a slot that does not exist.
#[test]
fn the_kernel_clamps_its_indices() {
    for gpu in &both_classes() {
        let market = environment(gpu);
        let at_start = |field: usize, value: u32| move |step: usize| (step == 0).then_some((field, value));
        let last = {
            let bench = Bench::new(gpu, &market, ENVS, STEPS as u32, 7);
            let words = bench.words(bench.state());
            let first = words[4 * ENVS..5 * ENVS].iter().min().copied().unwrap();
            assert!(words[4 * ENVS..5 * ENVS].iter().all(|bar| *bar < first + 6));
            market.first + market.starts + market.length - 2
        };
        let expected = outcome(gpu, &market, at_start(4, last), 2);
        for bar in [last + 1, u32::MAX] {
            assert!(outcome(gpu, &market, at_start(4, bar), 2) == expected, "bar {bar}");
        }
        assert!(outcome(gpu, &market, at_start(4, market.first), 2) != expected);
        assert!(
            outcome(gpu, &market, at_start(4, 0), 2) == outcome(gpu, &market, at_start(4, market.first), 2)
        );
        let expected = outcome(gpu, &market, |_| None, 2);
        for action in [3, 31, 32, u32::MAX] {
            assert!(outcome(gpu, &market, |_| None, action) == expected, "action {action}");
        }
        let [.., ends, _] = outcome(gpu, &market, |step| (step > 0).then_some((7, u32::MAX)), 1);
        let most = 1 + market.truncations(STEPS as u32);
        assert!(ends[..STEPS * ENVS].iter().all(|end| *end <= most));
        assert!(ends[..STEPS * ENVS].contains(&most));
    }
}
