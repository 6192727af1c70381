//! An optimizer step as the trainer takes it: `nn/reduce`, `ppo/adamw` and `ppo/end_step`, compared with f64 and PyTorch.

use super::adamw::{self, AdamW, STATE};
use super::end_step::{self, EndStep};
use super::epoch::Epoch;
use super::loss_scale::{self, LossScale};
use super::scalars;
use super::testing::close;
use crate::gpu::{Class, Command, Gpu, Recorder, Recording};
use crate::nn::{KernelConfig, Storage, fold, layout::NetworkStack, reduce};

/// vec4s of a tile, so that a network has several.
const TILE: u32 = 7;

/// Networks of plain parameters with their buffers.
struct Networks {
    gpu: Gpu,
    partials: wgpu::Buffer,
    params: wgpu::Buffer,
    second: wgpu::Buffer,
    optimizer: wgpu::Buffer,
    scalars: wgpu::Buffer,
    step: Recording,
}

/// Settings of the optimizer. The first network is an actor, the others are critics.
#[derive(Clone)]
struct Settings {
    /// vec4s of every network, and the agent it belongs to.
    networks: Vec<(u32, u32)>,
    adamw: AdamW,
    scale: LossScale,
    next: Epoch,
}

fn settings(networks: &[(u32, u32)]) -> Settings {
    let adamw = AdamW { actor_rate: 0.5, critic_rate: 0.25, ..AdamW::new([0.9, 0.999], 1e-5, 0.0) };
    Settings { networks: networks.to_vec(), adamw, scale: LossScale::CONSTANT, next: Epoch::default() }
}

impl Networks {
    fn new(gpu: &Gpu, settings: &Settings, params: &[f32]) -> Self {
        let (mut nets, mut tiles, mut first) = (Vec::new(), Vec::new(), 0);
        for (number, (length, agent)) in settings.networks.iter().copied().enumerate() {
            let first_tile = tiles.len() as u32;
            tiles.extend(
                (0..length)
                    .step_by(TILE as usize)
                    .map(|at| reduce::RowTile::plain(first + at, TILE, TILE.min(length - at), 1)),
            );
            let stack = u32::from(number > 0);
            let own = tiles.len() as u32 - first_tile;
            nets.push(fold::NetworkSlice {
                params: first,
                length,
                stack,
                agent,
                first_tile,
                tiles: own,
                ..Default::default()
            });
            first += length;
        }
        assert_eq!(params.len() as u32, 4 * first);
        let count = nets.len() as u32;
        let squares = count * STATE as u32;
        let zeros = |name: &str, words: u32| gpu.upload(name, &vec![0f32; words as usize]).unwrap();
        let params = gpu.upload("params", params).unwrap();
        let [partials, gradient, first_moments, second] =
            ["partials", "gradient", "m", "v"].map(|name| zeros(name, 4 * first));
        let (optimizer, step) = (zeros("optimizer", squares), zeros("step", squares + tiles.len() as u32));
        let (scalars, statistics) = (zeros("scalars", 16), zeros("statistics", 8));
        loss_scale::start(gpu, &scalars, 1.0).unwrap();
        gpu.write(&scalars, scalars::RATE_SHARE as u64 * 4, bytemuck::bytes_of(&1f32)).unwrap();
        let iteration = gpu.upload("iteration", &[0u32; 4]).unwrap();
        let nets = gpu.upload("nets", &nets).unwrap();

        let sum = reduce::kernel(gpu).unwrap();
        let parameters =
            reduce::Reduce { length: first, partial_sums: 1, tiles: tiles.len() as u32, squares };
        let row_tiles = gpu.upload("tiles", &tiles).unwrap();
        let buffers = reduce::Buffers {
            tiles: &row_tiles,
            params: &params,
            partials: &partials,
            gradient: &gradient,
            step: &step,
        };
        let group = reduce::bind(gpu, &sum, &parameters, buffers).unwrap();
        let mut commands = vec![Command::dispatch(&sum, &group, reduce::groups(tiles.len() as u32))];

        let kernel = adamw::kernel(gpu).unwrap();
        let buffers = adamw::Buffers {
            nets: &nets,
            optimizer: &optimizer,
            step: &step,
            gradient: &gradient,
            first: &first_moments,
            second: &second,
            params: &params,
            scalars: &scalars,
        };
        let group = adamw::bind(gpu, &kernel, &AdamW { squares, ..settings.adamw }, buffers).unwrap();
        let longest = settings.networks.iter().map(|(length, _)| *length).max().unwrap();
        commands.push(Command::dispatch(&kernel, &group, adamw::groups(gpu.class(), longest, count)));

        let kernel = end_step::kernel(gpu, &KernelConfig::plain(gpu.class(), Storage::F32)).unwrap();
        let buffers = end_step::Buffers {
            epochs: &gpu.uniform_table("epochs", &[settings.next]).unwrap(),
            scalars: &scalars,
            statistics: &statistics,
            iteration: &iteration,
            // Networks without layers: nothing is folded.
            stacks: &gpu.uniform("stacks", &[NetworkStack::default(); 2]).unwrap(),
            nets: &nets,
            params: &params,
            working: &zeros("working", 4),
            step: &step,
            optimizer: &optimizer,
        };
        let group = end_step::bind(gpu, &kernel, &EndStep::new(count, &settings.scale), buffers).unwrap();
        commands.push(Command::dispatch_at(&kernel, &group, 0, 0, [1, 1, 1]));
        Self { gpu: gpu.clone(), partials, params, second, optimizer, scalars, step: commands }
    }

    fn set(&self, index: usize, value: f32) {
        self.gpu.write(&self.scalars, index as u64 * 4, bytemuck::bytes_of(&value)).unwrap();
    }

    /// Takes a step; returns the optimizer state.
    fn step(&self, gradient: &[f32]) -> Vec<f32> {
        self.gpu.write(&self.partials, 0, bytemuck::cast_slice(gradient)).unwrap();
        Recorder::new(&self.gpu).run(&self.step).unwrap();
        self.gpu.read(&self.optimizer).unwrap()
    }

    fn params(&self) -> Vec<f32> {
        self.gpu.read(&self.params).unwrap()
    }
}

/// The optimizer state after a step of two networks, of 250 vec4s and of one.
fn state(gpu: &Gpu, gradient: &[f32], max_norm: f32, scale: f32, share: f32) -> Vec<f32> {
    let mut settings = settings(&[(250, 0), (1, 0)]);
    settings.adamw.max_norm = max_norm;
    let networks = Networks::new(gpu, &settings, &vec![0.0; 1004]);
    networks.set(scalars::LOSS_SCALE, scale);
    networks.set(scalars::RATE_SHARE, share);
    networks.step(gradient)
}

fn gradient() -> Vec<f32> {
    (0..1004).map(|i| ((i * 29) % 83) as f32 / 41.0 - 1.0).collect()
}

#[test]
fn norm_factor_rate_and_corrections() {
    for gpu in crate::testing::both_classes() {
        let gradient = gradient();
        let norm = |of: &[f32]| of.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let (first, second) = (norm(&gradient[..1000]), norm(&gradient[1000..]));
        let got = state(&gpu, &gradient, 3.0, 1.0, 0.8);
        close("first", &got[..8], &[1.0, first, 3.0 / first, 0.4, 0.1, 0.001, 1.0, 0.0], 2e-6);
        let factor = (3.0 / second).min(1.0);
        close("second", &got[8..], &[1.0, second, factor, 0.2, 0.1, 0.001, 1.0, 0.0], 2e-6);
        assert!((f64::from(got[5]) / 0.001 - 1.0).abs() < 1e-5, "1 - beta2 without cancellation: {}", got[5]);
        assert_eq!(state(&gpu, &gradient, 0.0, 1.0, 1.0)[2], 1.0, "0 does not clip");
    }
}

#[test]
fn the_loss_scale_is_taken_out() {
    let gpu = crate::testing::gpu();
    let gradient = gradient();
    let scaled: Vec<f32> = gradient.iter().map(|g| g * 4096.0).collect();
    let (plain, scaled) = (state(&gpu, &gradient, 3.0, 1.0, 1.0), state(&gpu, &scaled, 3.0, 4096.0, 1.0));
    for (i, (plain, scaled)) in plain.iter().zip(&scaled).enumerate() {
        // Only the factor of either network contains the scale.
        let factor = if i % 8 == 2 { 4096.0 } else { 1.0 };
        assert_eq!(*plain, scaled * factor, "{i}");
    }
}

#[test]
fn a_gradient_that_is_no_number_skips_only_its_network() {
    for gpu in crate::testing::both_classes() {
        for poison in [f32::NAN, f32::INFINITY, 3e38] {
            let networks = Networks::new(&gpu, &settings(&[(9, 0), (1, 0)]), &[1.0; 40]);
            let mut gradient = vec![1f32; 40];
            gradient[31] = poison;
            for skips in [1.0, 2.0] {
                let got = networks.step(&gradient);
                assert_eq!([got[0], got[6], got[7]], [0.0, -skips, skips], "{poison}");
                assert_eq!([got[8], got[14], got[15]], [skips, 1.0, 0.0], "{poison}");
                let params = networks.params();
                assert_eq!(params[..36], [1.0; 36], "{poison}");
                assert!(params[36..].iter().all(|x| *x < 1.0), "{poison}: {params:?}");
            }
            gradient[31] = 1.0;
            let got = networks.step(&gradient);
            assert_eq!([got[0], got[6], got[7]], [1.0, 1.0, 2.0], "{poison}");
            assert!(networks.params().iter().all(|x| *x < 1.0), "{poison}");
        }
    }
}

/// HAPPO: networks of other agents keep weights and counts, and remember the steps they had skipped in a row.
#[test]
fn networks_of_other_agents_wait() {
    let gpu = crate::testing::gpu();
    let mut all = settings(&[(2, 1), (3, 2), (1, 1)]);
    all.adamw.agent_step = 1;
    let networks = Networks::new(&gpu, &all, &[1.0; 24]);
    let seven = [0.0, 9.0, 9.0, 9.0, 0.5, 0.5, -3.0, 7.0f32];
    gpu.write(&networks.optimizer, STATE * 4, bytemuck::cast_slice(&seven)).unwrap();
    for _ in 0..2 {
        let got = networks.step(&[1.0; 24]);
        assert_eq!(got[8..16], [0.0, 9.0, 9.0, 9.0, 0.5, 0.5, 5.0, 7.0]);
        assert_eq!([got[6], got[22]], [1.0; 2]);
    }
    let params = networks.params();
    assert_eq!(params[8..20], [1.0; 12]);
    assert!(params[..8].iter().chain(&params[20..]).all(|x| *x < 1.0), "{params:?}");
}

/// A stopped step moves nothing, although the same dispatch begins the first minibatch of the next epochs, which lifts the stop.
#[test]
fn a_stop_holds_until_the_end_of_its_step() {
    for gpu in crate::testing::both_classes() {
        let mut all = settings(&[(40, 0)]);
        all.scale = LossScale { interval: 1, ..LossScale::DYNAMIC };
        let groups = 1;
        all.next = Epoch { begins: 1, groups, enabled: 1, weight: 0.5, ..Epoch::default() };
        let networks = Networks::new(&gpu, &all, &[1.0; 160]);
        networks.set(scalars::STOPPED, 1.0);
        networks.set(scalars::RETURN_MEAN, 6.0);
        let before = networks.step(&[1.0; 160]);
        assert_eq!(before, [0.0; 8]);
        assert_eq!(networks.params(), [1.0; 160]);
        let now: Vec<f32> = gpu.read(&networks.scalars).unwrap();
        let found = [scalars::STOPPED, scalars::LOSS_SCALE, scalars::EPOCHS, scalars::VALUE_NORM_MEAN]
            .map(|i| now[i]);
        assert_eq!(found, [0.0, 1.0, 1.0, 3.0], "the minibatch has begun, the scale is the same");
        assert_eq!(networks.step(&[1.0; 160])[..1], [1.0]);
        let now: Vec<f32> = gpu.read(&networks.scalars).unwrap();
        assert_eq!([now[scalars::LOSS_SCALE], now[scalars::EPOCHS]], [2.0, 2.0]);
        assert!(networks.params().iter().all(|x| *x < 1.0));
    }
}

#[test]
fn ten_clipped_steps_agree_with_f64_and_a_bad_gradient_changes_nothing() {
    for gpu in crate::testing::both_classes() {
        // More vec4s than invocations of all workgroups of the software class, and a number that is not a multiple.
        let length = if gpu.class() == Class::Software { 256 * 8 * 32 + 300 } else { 1100 };
        ten_steps(&gpu, length);
    }
}

fn ten_steps(gpu: &Gpu, length: u32) {
    let (beta1, beta2, epsilon, decay, rate, max_norm) = (0.9f64, 0.999f64, 1e-5, 0.01, 0.02, 1.5);
    let count = 4 * length as usize;
    let start: Vec<f32> = (0..count).map(|i| ((i * 31) % 17) as f32 / 8.0 - 1.0).collect();
    let mut params: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
    let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
    let mut all = settings(&[(length, 0)]);
    let step = AdamW::new([beta1, beta2], epsilon, decay);
    all.adamw = AdamW { max_norm: max_norm as f32, actor_rate: rate as f32, ..step };
    let networks = Networks::new(gpu, &all, &start);
    let mut taken = 0;
    for t in 0..11 {
        let mut g: Vec<f32> =
            (0..count).map(|i| (((i + 3 * t) * 13) % 29) as f32 / 20.0 - 0.7 + t as f32 * 0.1).collect();
        if t == 5 {
            g[9] = f32::NAN;
        }
        networks.step(&g);
        if t == 5 {
            continue;
        }
        taken += 1;
        let norm = g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let factor = (max_norm / (norm + 1e-6)).min(1.0);
        for i in 0..count {
            let g = f64::from(g[i]) * factor;
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            params[i] -= rate * decay * params[i];
            let corrected = m[i] / (1.0 - beta1.powi(taken));
            params[i] -= rate * corrected / ((v[i] / (1.0 - beta2.powi(taken))).sqrt() + epsilon);
        }
    }
    close("parameters", &networks.params(), &params, 4e-6);
    close("second moments", &gpu.read(&networks.second).unwrap(), &v, 1e-6);
}

fn numbers(of: &serde_json::Value) -> Vec<f64> {
    of.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Gradients that overflow on purpose, compared with `torch.amp.GradScaler` and two optimizers.
#[test]
fn scale_skips_and_weights_are_those_of_grad_scaler() {
    let fixture = include_str!("../../tests/fixtures/learning.json");
    let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
    for gpu in crate::testing::both_classes() {
        follow_grad_scaler(&gpu, &fixture["scaler"]);
    }
}

fn follow_grad_scaler(gpu: &Gpu, scaler: &serde_json::Value) {
    // One vec4 for each of the two networks.
    let quad = |of: &serde_json::Value| {
        let mut quad = numbers(of);
        quad.resize(4, 0.0);
        quad
    };
    let both = |of: &serde_json::Value| [quad(&of["actor"]), quad(&of["critic"])].concat();
    let f32s = |of: &[f64]| of.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let mut all = settings(&[(1, 0), (1, 0)]);
    all.adamw = AdamW { actor_rate: 1e-2, critic_rate: 1e-2, ..AdamW::new([0.9, 0.999], 1e-5, 1e-2) };
    all.scale = LossScale { interval: 3, ..LossScale::DYNAMIC };
    let networks = Networks::new(gpu, &all, &f32s(&both(&scaler["params"])));
    networks.set(scalars::LOSS_SCALE, loss_scale::INITIAL);
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
        let state = networks.step(&scaled);
        let now: Vec<f32> = gpu.read(&networks.scalars).unwrap();
        let expected = ["scale_after", "growth_tracker"].map(|key| recorded[key].as_f64().unwrap());
        assert_eq!([now[9], now[10]].map(f64::from), expected, "step {number}");
        let skips = ["actor_skipped", "critic_skipped"].map(|key| recorded[key].as_bool().unwrap());
        assert_eq!([state[6] < 0.0, state[14] < 0.0], skips, "step {number}");
        close("weights", &networks.params(), &both(&recorded["params"]), 1e-6);
        grown += usize::from(expected[0] > scale);
        skipped += usize::from(expected[0] < scale);
    }
    assert!(grown >= 2 && skipped >= 4, "the fixture drives both: {grown}, {skipped}");
}
