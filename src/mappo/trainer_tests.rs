//! The initial state of training.

use super::*;
use crate::env::{EnvRecording, RolloutBuffers, Spec};

struct Still;

impl Environment for Still {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 2, actions: 2 }
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
        let trainer = Trainer::new(&gpu, &Still, &config).unwrap();
        let got: Vec<f32> = gpu.read(&trainer.buffers.rollout.scalars).unwrap();
        assert_eq!(
            [got[scalars::MEAN], got[scalars::DEVIATION]],
            [0.0, deviation],
            "value_norm = {value_norm}"
        );
    }
}
