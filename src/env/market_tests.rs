//! Invalid saved states are rejected, and the kernel stays within its buffers for any state.

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;

use crate::env::bench::Bench;
use crate::env::{
    ActionSpace, DeviceState, Environment, Episodes, State, Storage, Trading, TradingSettings, step,
};
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
    let data = data(gpu);
    let first = data.first_bar();
    Trading::new(&data, &settings(), &Episodes::Random(first..first + LENGTH as usize + 6)).unwrap()
}

/// The same for trainers.
pub(crate) fn small_market(gpu: &Gpu, action_space: ActionSpace) -> Trading {
    let data = data(gpu);
    let first = data.first_bar();
    let settings = TradingSettings { actions: action_space, ..settings() };
    Trading::new(&data, &settings, &Episodes::Random(first..first + LENGTH as usize + 6)).unwrap()
}

fn settings() -> TradingSettings {
    TradingSettings { episode_length: LENGTH, ..TradingSettings::default() }
}

fn data(gpu: &Gpu) -> MarketData {
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
    MarketData::new(gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap()
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
            market.starts.last_bar() - 1
        };
        let expected = outcome(gpu, &market, at_start(4, last), 2);
        for bar in [last + 1, u32::MAX] {
            assert!(outcome(gpu, &market, at_start(4, bar), 2) == expected, "bar {bar}");
        }
        assert!(outcome(gpu, &market, at_start(4, market.starts.first()), 2) != expected);
        assert!(
            outcome(gpu, &market, at_start(4, 0), 2)
                == outcome(gpu, &market, at_start(4, market.starts.first()), 2)
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

/// Episodes start at every bar of every range that has room for them, and stay within it.
#[test]
fn episodes_stay_within_one_of_several_ranges() {
    for gpu in &both_classes() {
        let data = data(gpu);
        let first = data.first_bar();
        // The second is too short for an episode; the last one has room for one start.
        let ranges =
            vec![first..first + 7, first + 9..first + 13, first + 20..first + 26, first + 30..first + 35];
        let several = Episodes::Within(ranges.clone());
        let market = Trading::new(&data, &settings(), &several).unwrap();
        let allowed: Vec<_> = [0, 1, 2, 20, 21, 30].map(|bar| (first + bar) as u32).to_vec();
        let mut bench = Bench::new(gpu, &market, 64, 9, 5);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            bench.run();
            let words = bench.words(bench.state());
            saved(&bench).validate(&words).unwrap();
            for env in 0..64 {
                let start = words[4 * 64 + env] - words[5 * 64 + env];
                assert!(allowed.contains(&start), "an episode that starts at {start}");
                seen.insert(start);
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), allowed);
        let state = saved(&bench);
        let mut forged = bench.words(state.buffer());
        (forged[4 * 64], forged[5 * 64]) = ((first + 10) as u32, 0);
        assert!(state.validate(&forged).unwrap_err().contains("cannot be reached"));

        // One range is what it was, in its identity too.
        let [one, same] = [Episodes::Random(ranges[0].clone()), Episodes::Within(vec![ranges[0].clone()])]
            .map(|episodes| {
                let market = Trading::new(&data, &settings(), &episodes).unwrap();
                (market.identity(), outcome(gpu, &market, |_| None, 2))
            });
        assert!(one == same && one.0 != market.identity());
    }
}

/// A market needs what its functions need; the candles have a buffer already.
#[test]
fn the_functions_have_the_sizes_of_the_market() {
    let gpu = crate::testing::gpu();
    let data = data(&gpu);
    let first = data.first_bar();
    let weights = TradingSettings { actions: ActionSpace::Weights, ..settings() };
    let ranges = Episodes::Within(vec![first..first + 7, first + 9..first + 30]);
    let mut sources = Vec::new();
    for (settings, episodes) in
        [(settings(), &ranges), (settings(), &Episodes::Whole(first..first + 9)), (weights, &ranges)]
    {
        let market = Trading::new(&data, &settings, episodes).unwrap();
        let functions = market.functions().unwrap();
        assert_eq!((functions.spec(), functions.continuous()), (market.spec(), market.continuous()));
        assert_eq!(functions.identity(), market.identity());
        for (envs, steps) in [(4, 6), (64, 33)] {
            assert_eq!(functions.plan(envs, steps).bytes(), market.plan(envs, steps).bytes());
            assert_eq!(functions.truncations(steps), market.truncations(steps));
        }
        sources.push(functions.source(&step::variant(gpu.class(), Storage::F32)).unwrap());
    }
    // Markets that differ only in their episodes share a kernel.
    assert!(sources[0] == sources[1] && sources[0] != sources[2]);
}

#[test]
fn ranges_without_room_or_order_are_refused() {
    let gpu = crate::testing::gpu();
    let data = data(&gpu);
    let first = data.first_bar();
    let refusal = |ranges: Vec<std::ops::Range<usize>>| {
        Trading::new(&data, &settings(), &Episodes::Within(ranges)).unwrap_err().to_string()
    };
    assert!(refusal(vec![first..first + 4, first + 6..first + 9]).contains("any of the 2 ranges"));
    assert!(refusal(vec![first..first + 8, first + 7..first + 19]).contains("do not come after"));
    assert!(refusal(vec![first..first + 8, first + 9..1000]).contains("cannot be traded"));
    assert!(refusal(vec![]).contains("do not fit in the 0 bars"));
}
