//! Generalised advantage estimation (Schulman et al., arXiv 1506.02438).
//!
//! d_t = r_t + g V_{t+1} m_{t+1} - V_t; A_t = d_t + g l m_{t+1} A_{t+1}; R_t = A_t + V_t. After a terminal step nothing is
//! bootstrapped; a truncated step bootstraps from the value of the episode's own last observation and ends the
//! recursion. Values are stored normalised and are scaled back first, with the
//! statistics of the agent's networks.
//!
//! Shapes: values `[slot][agent][env]` with slots 0..=T for the rollout, then those of truncated episodes; rewards and
//! results `[t][agent][env]`; `dones_and_masks` `[t][env]`: 0 the episode goes on, 1 terminated, 2 + k truncated with its last
//! observation in slot T + 1 + k.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/gae");

/// Counterpart of `Gae` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Gae {
    /// T, steps of the rollout.
    pub steps: u32,
    /// Agents of an environment.
    pub agents: u32,
    /// Environments.
    pub envs: u32,
    /// Discount per step.
    pub gamma: f32,
    /// Lambda, the weight of longer estimates.
    pub lambda: f32,
    /// K, slots of truncated episodes.
    pub truncations: u32,
    /// Factor on the rewards.
    pub reward_scale: f32,
    /// Groups of agents that share networks, each with a ValueNorm: 1, or one per agent.
    pub groups: u32,
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Read, Read, Write];
    Kernel::trusted(gpu, &SHADER, Variant::independent(gpu.class()), &access, 0)
}

/// Workgroups: one invocation per agent and environment.
#[must_use]
pub fn groups(variant: &Variant, parameters: &Gae) -> [u32; 3] {
    [variant.groups(parameters.agents * parameters.envs), 1, 1]
}

/// f32s of the targets of `rows` rows: log-probabilities, which [`super::sample`] writes, advantages and returns; then the
/// log-probabilities of each of `choices` choices.
#[must_use]
pub fn target_words(rows: u64, choices: u32) -> u64 {
    (3 + u64::from(choices)) * rows
}

/// First vec4 of the choices' log-probabilities in the targets of `rows` rows, `[choice][t][agent][env]`.
#[must_use]
pub fn choice_targets(rows: u32) -> u32 {
    3 * (rows / 4)
}

/// Binds values, rewards, `dones_and_masks`, scalars and targets.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &Gae,
    [values, rewards, dones_and_masks, scalars, targets]: [&wgpu::Buffer; 5],
) -> Result<BindGroup> {
    let uniform = gpu.uniform("gae", parameters)?;
    kernel.bind(gpu, &[&uniform, values, rewards, dones_and_masks, scalars, targets])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, gpu, run};
    use super::*;

    /// Advantages and returns of six steps in which `signal` ends step 2, for one agent in lane `lane` of four.
    fn golden(signal: u32, final_value: f32, lane: usize, deviation: f32, mean: f32) -> (Vec<f32>, Vec<f32>) {
        planned(1, signal, final_value, lane, deviation, mean)
    }

    fn planned(
        truncations: u32,
        signal: u32,
        final_value: f32,
        lane: usize,
        deviation: f32,
        mean: f32,
    ) -> (Vec<f32>, Vec<f32>) {
        let gpu = gpu();
        let (steps, envs) = (6usize, 4usize);
        let rewards = [1.0, 0.0, -1.0, 0.5, 2.0, 0.25];
        let mut values = vec![0.5f32, 0.4, -0.2, 0.3, 1.0, 0.1, 0.7];
        values.extend((0..truncations).map(|_| final_value));
        let spread = |of: &[f32]| -> Vec<f32> {
            let mut all = vec![f32::NAN; of.len() * envs];
            of.iter().enumerate().for_each(|(t, x)| all[t * envs + lane] = *x);
            all
        };
        let normalised: Vec<f32> = values.iter().map(|v| (v - mean) / deviation).collect();
        let mut dones_and_masks = vec![0u32; steps * envs];
        dones_and_masks[2 * envs + lane] = signal;
        let mut scalars = vec![f32::NAN; 16];
        scalars[3] = mean;
        scalars[4] = deviation;
        // Divided by a power of two, so that `reward_scale` gives back the same numbers exactly.
        let rewards = rewards.map(|reward| reward / 4.0);
        let parameters = Gae {
            steps: 6,
            agents: 1,
            envs: 4,
            gamma: 0.99,
            lambda: 0.95,
            truncations,
            reward_scale: 4.0,
            groups: 1,
        };
        let kernel = kernel(&gpu).unwrap();
        let targets = gpu.upload("targets", &vec![0f32; 3 * steps * envs]).unwrap();
        let buffers = [
            &gpu.upload("values", &spread(&normalised)).unwrap(),
            &gpu.upload("rewards", &spread(&rewards)).unwrap(),
            &gpu.upload("dones_and_masks", &dones_and_masks).unwrap(),
            &gpu.upload("scalars", &scalars).unwrap(),
            &targets,
        ];
        let group = bind(&gpu, &kernel, &parameters, buffers).unwrap();
        run(&gpu, &kernel, &group, groups(&kernel.variant, &parameters));
        let got: Vec<f32> = gpu.read(&targets).unwrap();
        let section = |s: usize| (0..steps).map(|t| got[(s * steps + t) * envs + lane]).collect();
        (section(1), section(2))
    }

    #[test]
    fn termination_gives_the_golden_values() {
        let (advantages, returns) = golden(1, f32::NAN, 2, 1.0, 0.0);
        close("A", &advantages, &[-0.3740512, -1.3504, -0.8, 2.9692769, 1.8918415, 0.843], 1e-6);
        close("R", &returns, &[0.1259488, -0.9504, -1.0, 3.2692769, 2.8918415, 0.943], 1e-6);
    }

    #[test]
    fn truncation_bootstraps_from_the_final_observation() {
        let (advantages, _) = golden(2, 0.6, 1, 1.0, 0.0);
        close("A", &advantages, &[0.1513657, -0.791743, -0.206, 2.9692769, 1.8918415, 0.843], 1e-6);
    }

    /// A truncation beyond the planned number bootstraps from the slot after the rollout.
    #[test]
    fn an_unplanned_truncation_reads_nothing_outside() {
        let (unplanned, _) = planned(0, 2, f32::NAN, 1, 1.0, 0.0);
        assert_eq!(unplanned, golden(2, 0.7, 1, 1.0, 0.0).0);
    }

    #[test]
    fn normalised_values_are_scaled_back_first() {
        let (advantages, _) = golden(1, f32::NAN, 3, 0.25, -3.0);
        close("A", &advantages, &[-0.3740512, -1.3504, -0.8, 2.9692769, 1.8918415, 0.843], 2e-6);
    }
}
