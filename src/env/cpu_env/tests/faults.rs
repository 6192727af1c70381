//! Simulators that panic, differ from each other or break their word.

use super::super::instance::wrong_mask;
use super::*;

#[test]
fn masks_of_actions_that_do_not_exist_are_refused() {
    let error = error_of(|| Counter { mask: Some(0b1111), ..Counter::default() });
    assert!(error.contains("environment 0: the action mask of agent 0 is 0b1111"), "{error}");
    assert!(error.contains("beyond the 3 that exist"), "{error}");
    // An inactive agent is no error.
    let mut bench =
        Bench::new(&CpuEnv::new("counter", || Counter { mask: Some(0), ..Counter::default() }), Storage::F32);
    bench.recorder.run(&bench.recorded.reset).unwrap();
    bench.roll(&random_actions(1)).unwrap();
    // Every choice of an active agent needs an allowed value.
    let wrong = |mask| wrong_mask(mask, &[2, 3]);
    assert_eq!([0, 0b00101, 0b11111].map(wrong), [None, None, None]);
    assert!(wrong(0b00011).unwrap().contains("no value of choice 1"));
    assert!(wrong(0b11100).unwrap().contains("no value of choice 0"));
    assert!(wrong(0b100000).unwrap().contains("beyond the 5"));
    assert_eq!(wrong_mask(u32::MAX, &[32]), None);
}

#[test]
fn a_panic_names_environment_and_message_and_the_pool_survives() {
    let error = error_of(|| Counter { panics: "step", ..Counter::default() });
    for part in ["environment 0: the simulator panicked", "in episode 1 (steps taken: 1)", "is unlucky"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = error_of(|| Counter { panics: "reset", ..Counter::default() });
    assert!(
        error.contains("environment 0: the simulator panicked") && error.contains("no reset today"),
        "{error}"
    );
    let bench = Bench::new(
        &CpuEnv::new("counter", || Counter { panics: "save", ..Counter::default() }),
        Storage::F32,
    );
    let error = bench.state().save().unwrap_err().to_string();
    assert!(error.contains("environment 0: the simulator panicked: nothing to save"), "{error}");
    // The third copy panics in its first episode. Afterwards a reset replaces it, and all step again.
    let made = std::sync::atomic::AtomicU32::new(0);
    let make = move || {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The first one is asked for the sizes.
        Counter { panics: if number == 3 { "step" } else { "" }, ..Counter::default() }
    };
    let mut bench = Bench::new(&CpuEnv::new("counter", make), Storage::F32);
    bench.recorder.run(&bench.recorded.reset).unwrap();
    let error = bench.roll(&random_actions(1)).unwrap_err().to_string();
    assert!(error.contains("environment 2: the simulator panicked"), "{error}");
    assert!(bench.state().save().is_err(), "a simulator that panicked has no state");
    bench.recorder.run(&bench.recorded.reset).unwrap();
    bench.roll(&random_actions(1)).unwrap();
}

/// An environment whose copies differ, or whose episodes are cut off against its word.
#[derive(Clone, Copy, Default)]
struct Odd {
    agents: u32,
    limit: Option<u32>,
    truncates: bool,
}

impl Simulator for Odd {
    fn spec(&self) -> Spec {
        Spec { agents: self.agents, obs_dim: FEATURES as u32, actions: 3 }
    }

    fn time_limit(&self) -> Option<u32> {
        self.limit
    }

    fn reset(&mut self, _: u64, _: &mut [f32]) {}

    fn step(&mut self, _: &[u32], _: &mut [f32], _: &mut [f32]) -> Outcome {
        if self.truncates { Outcome::Truncated } else { Outcome::Continues }
    }
}

#[test]
fn copies_with_other_sizes_are_named() {
    let odd = |second: Odd| {
        let made = std::sync::atomic::AtomicU32::new(0);
        CpuEnv::new("odd", move || {
            let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // The first one is asked for the sizes, then environments count from 0.
            if number == 6 { second } else { Odd { agents: 2, ..Odd::default() } }
        })
    };
    for (second, part) in [
        (Odd { agents: 3, ..Odd::default() }, "`spec` is Spec { agents: 3"),
        (
            Odd { agents: 2, limit: Some(9), ..Odd::default() },
            "`time_limit` is Some(9), and None in the first copy",
        ),
    ] {
        let environment = odd(second);
        let error = rollout_error(&environment);
        assert!(error.contains("environment 5: ") && error.contains(part), "{part}: {error}");
    }
}

#[test]
fn an_episode_is_cut_off_only_with_a_time_limit() {
    let cpu_env = CpuEnv::new("odd", || Odd { agents: 2, truncates: true, ..Odd::default() });
    let mut bench = Bench::new(&cpu_env, Storage::F32);
    bench.recorder.run(&bench.recorded.reset).unwrap();
    let error = bench.roll(&random_actions(1)).unwrap_err().to_string();
    for part in ["environment 0 returned `Outcome::Truncated`", "`Simulator::time_limit` is `None`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// The error of recording an environment.
fn rollout_error(cpu_env: &CpuEnv) -> String {
    let gpu = crate::testing::gpu();
    let buffer = gpu.buffer("rollout", 1 << 16, STATE).unwrap();
    let rollout = RolloutBuffers {
        envs: ENVS as u32,
        steps: STEPS as u32,
        seed: 11,
        storage: Storage::F32,
        state_dim: 0,
        first_state: 0,
        observations: &buffer,
        actions: &buffer,
        rewards: &buffer,
        dones_and_masks: &buffer,
        episodes: &buffer,
    };
    cpu_env.record(&gpu, &rollout).unwrap_err().to_string()
}
