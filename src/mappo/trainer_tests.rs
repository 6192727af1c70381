//! The initial state of training, and the dispatches that one workgroup runs.

use super::*;
use crate::env::{EnvRecording, RolloutBuffers, Spec};
use crate::gpu::Command;
use crate::nn::Sharing;
use crate::testing::both_classes;

struct Still {
    agents: u32,
}

impl Environment for Still {
    fn spec(&self) -> Spec {
        Spec { agents: self.agents, obs_dim: 2, actions: 2 }
    }
    fn truncations(&self, _: u32) -> u32 {
        0
    }
    fn plan(&self, _: u32, _: u32) -> Plan {
        Plan::new()
    }
    fn record(&self, _: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        Ok(EnvRecording { reset: vec![], steps: vec![vec![]; rollout.steps as usize], state: vec![] })
    }
}

/// The first advantages are computed before ValueNorm's first update: without ValueNorm values are not scaled, with it they are
/// scaled by the smallest variance, as in the reference.
#[test]
fn the_initial_value_scale_depends_on_value_norm() {
    let gpu = crate::testing::unchecked_gpu();
    for (value_norm, deviation) in [(false, 1.0), (true, 1e-3)] {
        let mut config = Config::default();
        config.ppo.value_norm = value_norm;
        config.ppo.num_envs = 4;
        config.ppo.rollout_steps = 2;
        config.network.hidden = vec![4];
        let trainer = Trainer::new(&gpu, &Still { agents: 1 }, &config).unwrap();
        let got: Vec<f32> = gpu.read(&trainer.buffers.rollout.scalars).unwrap();
        assert_eq!(
            [got[scalars::MEAN], got[scalars::DEVIATION]],
            [0.0, deviation],
            "value_norm = {value_norm}"
        );
    }
}

/// With 1,024 environments, 128 steps and 4 agents, a single workgroup would take long for a whole rollout: such reductions are trees
/// over workgroups.
#[test]
fn no_dispatch_of_one_workgroup_reads_more_than_64_kib() {
    // Bound to whole buffers, of which it reads a little: the KL divergences of an epoch, and only for `target_kl`.
    const ELSEWHERE: [&str; 1] = ["ppo/epoch"];
    for (separate, minibatches) in [(false, 1), (true, 1), (false, 4)] {
        for gpu in both_classes() {
            let mut config = Config::default();
            config.ppo.num_envs = 1024;
            config.ppo.rollout_steps = 128;
            config.ppo.minibatches = minibatches;
            config.network.hidden = vec![16];
            config.network.observation_norm = separate;
            config.network.networks = if separate { Sharing::Separate } else { Sharing::Shared };
            let trainer = Trainer::new(&gpu, &Still { agents: 4 }, &config).unwrap();
            let (rollout, update) = (&trainer.rollout, &trainer.update);
            let recordings = [&rollout.prepare, &rollout.collect, &rollout.values, &rollout.carry];
            let recordings = recordings.into_iter().chain([&update.advantages, &update.write_metrics]);
            let mut seen = std::collections::BTreeSet::new();
            for command in recordings.chain(&update.epochs).flatten() {
                let Command::Dispatch { kernel, group, groups: [1, 1, 1], .. } = command else { continue };
                seen.insert(kernel.name);
                let few = group.storage <= 64 << 10 || ELSEWHERE.contains(&kernel.name);
                assert!(
                    few,
                    "{} in one workgroup: {} bytes, {separate}, {minibatches}",
                    kernel.name, group.storage
                );
            }
            assert!(seen.contains("ppo/write_metrics"), "{seen:?}");
            assert_eq!(seen.contains("ppo/advantage_stats"), !separate, "{seen:?}");
        }
    }
}
