//! A small environment that uses everything an environment may, against the same rules in plain Rust, and the messages for mistakes.

mod errors;

use super::DeviceEnv;
use crate::env::bench::Bench;
use crate::env::{DeviceState, Environment, Spec, State};
use crate::gpu::Gpu;
use crate::nn::Storage;
use crate::random::{Stream, threefry};
use crate::testing::both_classes;

const RULES: &str = include_str!("tests/gather.wgsl");
const AGENTS: usize = 2;
const FEATURES: usize = 5;
const NUMBERS: usize = 3;
/// Steps after which phalanx, and `step`, truncate.
const LIMIT: u32 = 9;
const SHORTEST: u32 = 4;
const GAINS: [f32; 4] = [-0.5, 0.25, 0.5, -0.25];

#[repr(C, align(8))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    start: [f32; 2],
    size: f32,
    cost: f32,
}

const PARAMETERS: Parameters = Parameters { start: [0.5, -0.25], size: 1.5, cost: 0.125 };

fn gather() -> DeviceEnv {
    DeviceEnv::builder("gather", RULES, Spec { agents: AGENTS as u32, obs_dim: FEATURES as u32, actions: 7 })
        .choices(&[3, 4])
        .state_dim(NUMBERS as u32)
        .parameters(&PARAMETERS)
        .data_f32("gain", GAINS)
        .data_u32("patience", [6u32, SHORTEST])
        .time_limit(LIMIT)
        .truncates(SHORTEST)
        .build()
        .unwrap()
}

/// One environment by the rules of `gather.wgsl`.
#[derive(Clone, Default)]
struct Gather {
    env: u32,
    begun: u32,
    taken: u32,
    goal: [f32; 2],
    visits: [i32; 3],
    at: [[f32; 2]; AGENTS],
    carried: [u32; AGENTS],
}

impl Gather {
    fn reset(&mut self, seed: u64) {
        self.begun += 1;
        let seed = [seed as u32, (seed >> 32) as u32 ^ 0x5EED_0E17];
        let key = threefry(seed, [self.begun - 1, self.env]);
        let unit = |bits: u32| (bits >> 8) as f32 / 16_777_216.0;
        self.goal = threefry(key, [3, 0]).map(|bits| 2.0 * unit(bits) - 1.0);
        let bits = threefry(seed, [self.begun - 1 + 7, self.env]);
        self.visits = [(8.0 * unit(bits[0])) as i32 - 4, 0, 0];
        (self.taken, self.at, self.carried) = (0, [PARAMETERS.start; AGENTS], [0; AGENTS]);
    }

    /// Rewards and the end: 0 continues, 1 terminates, 2 is truncated.
    fn step(&mut self, actions: [u32; AGENTS]) -> ([f32; AGENTS], u32) {
        self.taken += 1;
        let mut rewards = [0.0; AGENTS];
        let mut together = true;
        for agent in 0..AGENTS {
            let (first, second) = (actions[agent] % 3, actions[agent] / 3);
            self.visits[first as usize] -= 1;
            self.carried[agent] += first;
            let size = PARAMETERS.size;
            let [x, y] = self.at[agent];
            let moved = [x + first as f32 * GAINS[second as usize], y + GAINS[second as usize]];
            self.at[agent] = moved.map(|it| it.clamp(-size, size));
            let away = [0, 1].map(|axis| (self.at[agent][axis] - self.goal[axis]).abs());
            rewards[agent] = -(away[0] + away[1]) - PARAMETERS.cost * agent as f32;
            together &= away[0].max(away[1]) < 0.75;
        }
        let patience = [6, SHORTEST][(self.begun % 2) as usize];
        let end = match () {
            () if together => 1,
            () if self.taken >= patience && self.visits[0] < -4 => 2,
            () if self.taken >= LIMIT => 2,
            () => 0,
        };
        (rewards, end)
    }

    fn observe(&self, agent: usize) -> [f32; FEATURES] {
        let [x, y] = self.at[agent];
        [x, y, self.goal[0] - x, self.carried[agent] as f32, self.taken as f32]
    }

    fn mask(&self, agent: usize) -> u32 {
        if self.carried[agent].is_multiple_of(2) { 0b111_1111 } else { 0b111_1011 }
    }

    fn global(&self) -> [f32; NUMBERS] {
        [self.goal[0], self.goal[1], self.visits[2] as f32]
    }
}

/// Steps the kernel and the plain rules side by side, over several episodes with every kind of end.
fn plays_by_the_rules(gpu: &Gpu, storage: Storage, envs: usize, steps: usize) {
    let environment = gather();
    let mut bench = Bench::stored(gpu, &environment, envs, steps as u32, 11, storage);
    let mut stream = Stream::new(4, 2);
    let actions: Vec<u32> = (0..steps * AGENTS * envs).map(|_| (stream.uniform() * 12.0) as u32).collect();
    bench.act(&actions);
    bench.run();
    let (seen, rewards) = (bench.observed(), bench.read(&bench.rewards));
    let (ends, totals) = (bench.words(&bench.dones_and_masks), bench.read(&bench.episodes));
    let slots = steps + 1 + environment.truncations(steps as u32) as usize;
    assert_eq!(environment.truncations(steps as u32), (steps as u32).div_ceil(SHORTEST));
    let tolerance = if storage == Storage::F32 { 1e-5 } else { 2e-3 };
    let compare = |what: &str, got: f32, expected: f32, tolerance: f32| {
        assert!(
            (got - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what}: {got} for {expected}"
        );
    };
    let mut kinds = [0; 3];
    for env in 0..envs {
        let mut rules = Gather { env: env as u32, ..Gather::default() };
        let slot = |rules: &Gather, slot: usize, masks: bool| {
            for agent in 0..AGENTS {
                for (feature, expected) in rules.observe(agent).into_iter().enumerate() {
                    let got = seen[((slot * AGENTS + agent) * FEATURES + feature) * envs + env];
                    compare(&format!("environment {env}, slot {slot}, {feature}"), got, expected, tolerance);
                }
                let mask = ends[(steps + slot.min(steps) * AGENTS + agent) * envs + env];
                assert!(!masks || mask == rules.mask(agent), "environment {env}, slot {slot}: {mask:b}");
            }
            let first = slots * AGENTS * FEATURES * envs;
            for (number, expected) in rules.global().into_iter().enumerate() {
                let got = seen[first + (slot * NUMBERS + number) * envs + env];
                compare(
                    &format!("environment {env}, slot {slot}, global {number}"),
                    got,
                    expected,
                    tolerance,
                );
            }
        };
        rules.reset(11);
        slot(&rules, 0, true);
        let (mut total, mut cut, mut sums) = (0.0, 0, [0f32; 4]);
        for step in 0..steps {
            let action = |agent: usize| actions[(step * AGENTS + agent) * envs + env];
            let (expected, end) = rules.step([action(0), action(1)]);
            for agent in 0..AGENTS {
                let got = rewards[(step * AGENTS + agent) * envs + env];
                compare(&format!("environment {env}, step {step}"), got, expected[agent], 1e-5);
                total += expected[agent] / AGENTS as f32;
            }
            let shown = [0, 1, 2 + cut][end as usize];
            assert_eq!(ends[step * envs + env], shown, "environment {env}, step {step}");
            kinds[end as usize] += 1;
            if end == 2 {
                slot(&rules, steps + 1 + cut as usize, false);
                cut += 1;
            }
            if end > 0 {
                let ended = [total, 1.0, rules.taken as f32, f32::from(u8::from(end == 1))];
                sums.iter_mut().zip(ended).for_each(|(sum, one)| *sum += one);
                total = 0.0;
                rules.reset(11);
            }
            slot(&rules, step + 1, true);
        }
        for (index, sum) in sums.into_iter().enumerate() {
            compare(&format!("environment {env}, sum {index}"), totals[index * envs + env], sum, 1e-4);
        }
    }
    assert!(kinds.iter().all(|count| *count > 0), "every kind of end occurs: {kinds:?}");
}

#[test]
fn an_environment_of_functions_plays_by_its_rules() {
    for gpu in &both_classes() {
        // Packed observations are stored in pairs of environments; trainers use multiples of four.
        for (storage, envs) in [(Storage::F32, 67), (Storage::F32, 1), (Storage::Packed, 36)] {
            plays_by_the_rules(gpu, storage, envs, 53);
        }
    }
}

fn saved(bench: &Bench) -> &DeviceState {
    let State::Device(state) = &bench.recorded.state[0] else { panic!("expected device state") };
    state
}

#[test]
fn saved_states_are_checked_before_they_are_loaded() {
    let gpu = crate::testing::gpu();
    let (envs, steps) = (4, 12);
    let mut bench = Bench::new(&gpu, &gather(), envs, steps, 3);
    bench.run();
    let words = bench.words(bench.state());
    saved(&bench).validate(&words).unwrap();
    let nan = f32::NAN.to_bits();
    // Two numbers of the goal, three visits, four counters, then `at.x`, `at.y` and `carried` of both agents.
    for (field, word, wanted) in [
        (0, nan, "goal.x is NaN"),
        (1, f32::INFINITY.to_bits(), "goal.y is inf"),
        (5, LIMIT, "step of the episode is 9, expected 0 to 8"),
        (6, 0, "episode is 0"),
        (7, 4, "truncated episodes is 4, expected 0 to 3"),
        (8, nan, "return is NaN"),
        (10, nan, "at.x of agent 1 is NaN"),
        (11, nan, "at.y of agent 0 is NaN"),
    ] {
        let mut words = words.clone();
        words[field * envs + 2] = word;
        let error = saved(&bench).validate(&words).unwrap_err();
        assert!(error.contains("environment 2") && error.contains(wanted), "{wanted}: {error}");
    }
    let builder = DeviceEnv::builder(
        "counter",
        "struct State { count: u32 } fn reset() {} fn step() -> Outcome { state.count++; reward(0u, 1.0); return CONTINUES; } fn observe(agent: u32) { feature(0u, 1.0); }",
        Spec { agents: 1, obs_dim: 1, actions: 2 },
    );
    let counter = builder.validate(|fields| fields.counts("count", 0, 0..=12)).build().unwrap();
    let mut bench = Bench::new(&gpu, &counter, envs, steps, 3);
    bench.run();
    let mut words = bench.words(bench.state());
    assert_eq!(words[..envs], [12; 4]);
    saved(&bench).validate(&words).unwrap();
    words[1] = 13;
    let error = saved(&bench).validate(&words).unwrap_err();
    assert_eq!(error, "environment 1: count is 13, expected 0 to 12");
}

/// Whatever words a state holds, the kernel stays within its buffers: its own are guarded by the bounds checks that the caller's
/// kernels always have.
#[test]
fn arbitrary_states_reach_nothing_else() {
    for gpu in &both_classes() {
        let gpu = gpu.with_checks(false);
        let mut bench = Bench::new(&gpu, &gather(), 4, 12, 3);
        let mut stream = Stream::new(8, 1);
        for _ in 0..8 {
            let words: Vec<u32> = bench
                .words(bench.state())
                .iter()
                .map(|_| (stream.uniform() * 4_294_967_295.0) as u32)
                .collect();
            gpu.write(bench.state(), 0, bytemuck::cast_slice(&words)).unwrap();
            let actions: Vec<u32> =
                (0..12 * AGENTS * 4).map(|_| (stream.uniform() * 4_294_967_295.0) as u32).collect();
            bench.act(&actions);
            bench.run();
        }
        // The device still works, and a reset leaves nothing of them.
        bench.recorder.run(&bench.recorded.reset).unwrap();
        let fresh = Bench::new(&gpu, &gather(), 4, 12, 3);
        let cut = 7 * 4..8 * 4;
        let [mut found, mut expected] = [&bench, &fresh].map(|bench| bench.words(bench.state()));
        // Truncations of a rollout are counted from its first step on.
        found[cut.clone()].fill(0);
        expected[cut].fill(0);
        assert_eq!(found, expected);
    }
}

#[test]
fn real_actions_arrive_as_numbers() {
    let rules = "fn reset() {}
fn step() -> Outcome { reward(0u, real(0u, 0u) - 2.0 * real(0u, 2u)); reward(1u, real(1u, 1u)); return CONTINUES; }
fn observe(agent: u32) { feature(0u, f32(agent)); }";
    for gpu in &both_classes() {
        let environment = DeviceEnv::builder("reals", rules, Spec { agents: 2, obs_dim: 1, actions: 3 })
            .continuous()
            .build()
            .unwrap();
        assert!(environment.continuous() && environment.truncations(100) == 0);
        let (envs, steps) = (5, 4);
        let mut bench = Bench::new(gpu, &environment, envs, steps as u32, 1);
        let actions: Vec<f32> = (0..steps * 2 * 3 * envs).map(|i| (i as f32 * 0.37).sin()).collect();
        bench.act(bytemuck::cast_slice(&actions));
        bench.run();
        let rewards = bench.read(&bench.rewards);
        let masks = bench.words(&bench.dones_and_masks);
        assert!(masks[steps * envs..][..(steps + 1) * 2 * envs].iter().all(|mask| *mask == 1));
        for step in 0..steps {
            for env in 0..envs {
                let real =
                    |agent: usize, number: usize| actions[((step * 2 + agent) * 3 + number) * envs + env];
                let got = |agent: usize| rewards[(step * 2 + agent) * envs + env];
                assert!((got(0) - (real(0, 0) - 2.0 * real(0, 2))).abs() < 1e-6);
                assert_eq!(got(1), real(1, 1));
            }
        }
    }
}

/// More truncations than there are slots for final observations would overwrite some.
#[test]
fn an_episode_is_not_truncated_before_its_shortest_length() {
    let rules = "fn reset() {}
fn step() -> Outcome { reward(0u, 1.0); return TRUNCATED; }
fn observe(agent: u32) { feature(0u, f32(steps_taken())); }";
    for gpu in &both_classes() {
        let spec = Spec { agents: 1, obs_dim: 1, actions: 2 };
        let environment = DeviceEnv::builder("hasty", rules, spec).truncates(4).build().unwrap();
        let (envs, steps) = (3, 10);
        let mut bench = Bench::new(gpu, &environment, envs, steps as u32, 1);
        bench.run();
        let ends = bench.words(&bench.dones_and_masks);
        let expected = [0, 0, 0, 2, 0, 0, 0, 3, 0, 0];
        assert!((0..steps * envs).all(|at| ends[at] == expected[at / envs]), "{:?}", &ends[..steps * envs]);
        // The final observations, and the slot that stays free.
        let seen = bench.observed();
        let slots: Vec<f32> = (steps + 1..steps + 4).map(|slot| seen[slot * envs]).collect();
        assert_eq!(slots, [4.0, 4.0, 0.0]);
    }
}

#[test]
fn the_identity_is_that_of_the_rules() {
    let spec = Spec { agents: 1, obs_dim: 1, actions: 2 };
    let rules = |bonus: &str| {
        format!(
            "fn reset() {{}}\n// A comment.\nfn step() -> Outcome {{ reward(0u, {bonus}); return CONTINUES; }}\nfn observe(agent: u32) {{ feature(0u, 1.0); }}"
        )
    };
    let of = |text: String| DeviceEnv::builder("one", text, spec);
    let own = of(rules("1.0")).build().unwrap().identity();
    assert_eq!(own, of(rules("1.0").replace("A comment", "Another")).build().unwrap().identity());
    let others = [
        of(rules("2.0")).build(),
        of(rules("1.0")).time_limit(4).build(),
        of(rules("1.0")).data_f32("table", [1.0]).build(),
        of(rules("1.0")).data_f32("table", [2.0]).build(),
        // The same bytes of another type, under other names, and cut elsewhere.
        of(rules("1.0")).data_u32("table", [1.0f32.to_bits()]).build(),
        of(rules("1.0")).data_f32("a", [1.0]).data_f32("b", [2.0, 3.0]).build(),
        of(rules("1.0")).data_f32("b", [1.0]).data_f32("a", [2.0, 3.0]).build(),
        of(rules("1.0")).data_f32("a", [1.0, 2.0]).data_f32("b", [3.0]).build(),
    ];
    let mut all: Vec<String> = others.into_iter().map(|it| it.unwrap().identity()).collect();
    all.push(own);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 9, "{all:?}");
}

/// Kernels without bounds checks write where these sizes say.
#[test]
fn buffers_that_are_too_small_are_refused() {
    let gpu = crate::testing::gpu();
    let environment = crate::env::Spread::new(crate::env::spread::Definition::Mpe2);
    let (spec, envs, steps) = (environment.spec(), 8u32, 30u32);
    let rows = u64::from(spec.agents * envs);
    let slots = u64::from(steps + 1 + environment.truncations(steps));
    let turns = u64::from(steps);
    let needed = [
        slots * rows * u64::from(spec.obs_dim) * 4,
        turns * rows * 4,
        turns * rows * 4,
        (turns * u64::from(envs) + (turns + 1) * rows) * 4,
        u64::from(envs) * 16,
    ];
    let record = |sizes: [u64; 5]| {
        let [observations, actions, rewards, dones_and_masks, episodes] =
            &sizes.map(|bytes| gpu.buffer("rollout", bytes, crate::gpu::STATE).unwrap());
        let rollout = crate::env::RolloutBuffers {
            envs,
            steps,
            seed: 1,
            storage: crate::env::Storage::F32,
            state_dim: 0,
            first_state: 0,
            observations,
            actions,
            rewards,
            dones_and_masks,
            episodes,
        };
        environment.record(&gpu, &rollout)
    };
    record(needed).unwrap();
    let names = ["observations", "actions", "rewards", "dones_and_masks", "episodes"];
    for (short, name) in names.into_iter().enumerate() {
        let mut sizes = needed;
        sizes[short] /= 2;
        let error = record(sizes).unwrap_err().to_string();
        assert!(error.contains(&format!("bytes of {name}")), "{error}");
    }
}
