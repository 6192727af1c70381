//! The dynamic loss scale of mixed precision, with the semantics of `torch.amp.GradScaler`: a step whose gradient is not
//! finite is skipped by the network concerned and multiplies the scale by 0.5; 2000 good steps in a row multiply it by 2.
//! Scale and count are kept in the buffer of scalars; [`super::clip`] divides the scale out of the gradients, [`super::adamw`]
//! moves it. The host reads it once per iteration, with the other metrics.

use super::scalars;
use crate::Result;
use crate::gpu::Gpu;

/// Initial scale in f16: 2^16.
pub const INITIAL: f32 = 65_536.0;

/// Growth and backoff of the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// Factor after `interval` good steps.
    pub growth: f32,
    /// Factor after a step whose gradient was not finite.
    pub backoff: f32,
    /// Good steps in a row; 0 leaves the scale alone.
    pub interval: u32,
}

impl LossScale {
    /// `GradScaler`'s defaults, for training in f16.
    pub const DYNAMIC: Self = Self { growth: 2.0, backoff: 0.5, interval: 2000 };

    /// A scale that stays, for training in f32.
    pub const CONSTANT: Self = Self { growth: 1.0, backoff: 1.0, interval: 0 };
}

/// Writes the initial scale into the buffer of scalars.
///
/// # Errors
/// As [`Gpu::write`].
pub fn start(gpu: &Gpu, buffer: &wgpu::Buffer, scale: f32) -> Result<()> {
    gpu.write(buffer, scalars::LOSS_SCALE as u64 * 4, bytemuck::bytes_of(&[scale, 0.0]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, gpu};
    use super::super::{adamw, clip};
    use super::*;
    use crate::gpu::{Command, Recorder};

    fn numbers(of: &serde_json::Value) -> Vec<f64> {
        of.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    /// Gradients that overflow on purpose, compared with `torch.amp.GradScaler` and two optimizers.
    #[test]
    fn scale_skips_and_weights_are_those_of_grad_scaler() {
        let fixture = include_str!("../../tests/fixtures/learning.json");
        let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let scaler = &fixture["scaler"];
        let gpu = gpu();
        // One vec4 for each of the two networks.
        let quad = |of: &serde_json::Value| {
            let mut quad = numbers(of);
            quad.resize(4, 0.0);
            quad
        };
        let both = |of: &serde_json::Value| [quad(&of["actor"]), quad(&of["critic"])].concat();
        let f32s = |of: &[f64]| of.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let params = gpu.upload("params", &f32s(&both(&scaler["params"]))).unwrap();
        let [gradient, first, second] =
            ["gradient", "first", "second"].map(|name| gpu.upload(name, &[0f32; 8]).unwrap());
        let net = |first| clip::NetworkSlice { first, length: 1, rate: 1e-2, agent: 0 };
        let nets = gpu.upload("nets", &[net(0), net(1)]).unwrap();
        let optimizer = gpu.upload("optimizer", &[0f32; 16]).unwrap();
        let iteration = gpu.upload("iteration", &[0u32; 2]).unwrap();
        let scalars = gpu.upload("scalars", &[0f32; scalars::GROUP]).unwrap();
        start(&gpu, &scalars, INITIAL).unwrap();
        let norms = clip::kernel(&gpu).unwrap();
        let clipping = clip::Clip {
            max_norm: 0.0,
            log_beta1: 0.9f64.ln() as f32,
            log_beta2: 0.999f64.ln() as f32,
            decay: 0.0,
            ..clip::Clip::default()
        };
        let buffers = [&nets, &gradient, &iteration, &optimizer, &scalars];
        let norms_group = clip::bind(&gpu, &norms, &clipping, buffers).unwrap();
        let step = adamw::kernel(&gpu).unwrap();
        let scale = LossScale { interval: 3, ..LossScale::DYNAMIC };
        let parameters = adamw::AdamW::new(0.9, 0.999, 1e-5, 1e-2).with_loss_scale(&scale, 2);
        let buffers = [&nets, &optimizer, &gradient, &first, &second, &params, &scalars];
        let step_group = adamw::bind(&gpu, &step, &parameters, buffers).unwrap();
        let mut recorder = Recorder::new(&gpu);
        let (mut grown, mut skipped) = (0, 0);
        for (number, recorded) in scaler["steps"].as_array().unwrap().iter().enumerate() {
            let scale = recorded["scale_before"].as_f64().unwrap();
            let mut scaled: Vec<f32> = f32s(&both(&recorded["gradients"]));
            scaled.iter_mut().for_each(|g| *g *= scale as f32);
            for spoil in recorded["spoil"].as_array().unwrap() {
                let first = if spoil["tensor"] == "actor" { 0 } else { 4 };
                scaled[first + spoil["index"].as_u64().unwrap() as usize] = match spoil["kind"].as_str() {
                    Some("inf") => f32::INFINITY,
                    Some("-inf") => f32::NEG_INFINITY,
                    _ => f32::NAN,
                };
            }
            gpu.write(&gradient, 0, bytemuck::cast_slice(&scaled)).unwrap();
            let grid = adamw::groups(&step.variant, 1, 2);
            recorder
                .run(&[
                    Command::dispatch(&norms, &norms_group, clip::groups(2)),
                    Command::dispatch(&step, &step_group, grid),
                ])
                .unwrap();
            let now: Vec<f32> = gpu.read(&scalars).unwrap();
            let expected = ["scale_after", "growth_tracker"].map(|key| recorded[key].as_f64().unwrap());
            assert_eq!([now[9], now[10]].map(f64::from), expected, "step {number}");
            let state: Vec<f32> = gpu.read(&optimizer).unwrap();
            let skips = ["actor_skipped", "critic_skipped"].map(|key| recorded[key].as_bool().unwrap());
            assert_eq!([state[6] < 0.0, state[14] < 0.0], skips, "step {number}");
            close("weights", &gpu.read(&params).unwrap(), &both(&recorded["params"]), 1e-6);
            grown += usize::from(expected[0] > scale);
            skipped += usize::from(expected[0] < scale);
        }
        assert!(grown >= 2 && skipped >= 4, "the fixture drives both: {grown}, {skipped}");
    }
}
