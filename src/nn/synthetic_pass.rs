//! The forward and the backward pass of one micro-batch on synthetic data: for measurements, and for comparing one kernel
//! configuration with another.

use half::f16;

use super::kernel_config::KernelConfig;
use super::layout::{Batch, ForwardPart, Layout, RecurrentPart};
use super::precision::Precision;
use super::weights::WorkingWeights;
use super::{backward, forward, reduce, weight_gradient};
use crate::gpu::{Arena, Command, Gpu, Recorder, Recording};
use crate::random::Stream;
use crate::{Error, Result};

/// Recorded passes with their buffers.
#[derive(Debug)]
pub struct SyntheticPass {
    /// Both stacks forward.
    pub forward: Recording,
    /// Gradients of the matrix products, gradients of the weights, and the sum of their splits.
    pub backward: Recording,
    /// Bytes of the observations, activations and gradients, each read or written at least once a pass.
    #[cfg_attr(not(feature = "bench"), allow(dead_code, reason = "read by benchmarks"))]
    pub bytes: [u64; 3],
    arena: Arena,
    gpu: Gpu,
}

/// Scale of the gradients at the heads, small enough that nothing overflows in f16.
const GRADIENT: f64 = 0.01;

impl SyntheticPass {
    /// Allocates and records everything for `slots` slots of `quads` quads of environments.
    ///
    /// # Errors
    /// Errors of compilation and allocation.
    pub fn new(
        gpu: &Gpu,
        layout: &Layout,
        kernel_config: &KernelConfig,
        quads: u32,
        slots: u32,
    ) -> Result<Self> {
        let shape = &layout.shape;
        let too_many = || Error::shape("rows of a synthetic pass", "fewer than 2^30", "more");
        let rows = u64::from(slots) * u64::from(shape.agents) * u64::from(quads);
        let rows = u32::try_from(rows).ok().filter(|rows| *rows < 1 << 28).ok_or_else(too_many)?;
        let room = kernel_config.room(u64::from(rows)) as u32;
        let precision = kernel_config.storage.precision();
        let batch = Batch {
            rows,
            stride: room,
            agents: shape.agents,
            quads,
            obs_dim: shape.obs_dim,
            acts: layout.act_rows,
            grads: layout.grad_rows,
            first_state: (u64::from(rows) * u64::from(shape.obs_dim)) as u32,
            state_dim: shape.stored_state(),
            starts_sum: 1,
            forward: ForwardPart { keep: 1, head_critic: shape.actions * room, ..ForwardPart::default() },
            recurrent: RecurrentPart {
                length: shape.chunk,
                chunk: shape.chunk,
                steps: slots,
                ..RecurrentPart::default()
            },
            ..Batch::default()
        };
        let tiles = weight_gradient::tiles(layout, kernel_config);
        let count = tiles.len() as u32;
        let splits = weight_gradient::splits(kernel_config, count, u64::from(rows));
        let params = u64::from(layout.params) * 4;
        let state = u64::from(slots) * u64::from(quads) * u64::from(shape.stored_state());
        let [observed, acts, grads] = [
            u64::from(rows) * u64::from(shape.obs_dim) + state,
            u64::from(layout.act_rows) * u64::from(room),
            u64::from(layout.grad_rows) * u64::from(room),
        ]
        .map(|quads| quads * 4 * precision.bytes());
        let mut plan = WorkingWeights::plan(layout, kernel_config);
        plan.words("params", params);
        plan.bytes_of("observations", observed);
        plan.bytes_of("activations", acts);
        plan.bytes_of("gradients", grads);
        plan.words("heads", u64::from(shape.actions + 1) * u64::from(room) * 4);
        plan.words("LayerNorm statistics", u64::from(layout.layer_norm_stats_rows) * u64::from(room) * 4);
        plan.words("partial sums", params * u64::from(splits));
        plan.words("gradient", params);
        plan.words("squares", reduce::tiles(layout).len() as u64);
        if shape.recurrent() {
            let row = u64::from(shape.agents) * u64::from(quads) * 4;
            let places = u64::from(forward::Memory::places(slots, shape.chunk, 0));
            plan.words("states", places * 2 * u64::from(shape.memory()) * row);
        }
        plan.words("dones_and_masks", u64::from(slots) * u64::from(quads) * 4);
        let arena = Arena::allocate(gpu, &plan)?;
        let get = |name| arena.get(name);
        let inputs = rows as usize * 4 * shape.obs_dim as usize + state as usize * 4;
        fill(gpu, layout, &arena, kernel_config, (rows, inputs), room)?;

        let batches = &gpu.uniform_table("synthetic pass", &[batch])?;
        let stacks = &forward::upload_stacks(gpu, &layout.stacks)?;
        let (params, working) = (get("params")?, get("working weights")?);
        let weights = &WorkingWeights::new(gpu, layout, kernel_config, stacks, params, working)?;
        Recorder::new(gpu).run(weights.refresh())?;
        let (observations, acts_of, layer_norm_stats) =
            (get("observations")?, get("activations")?, get("LayerNorm statistics")?);
        let (grads_of, head) = (get("gradients")?, get("heads")?);
        let dones_and_masks = get("dones_and_masks")?;
        let memory = match shape.recurrent() {
            true => Some(forward::Memory { states: get("states")? }),
            false => None,
        };
        let kernels = forward::Kernels::new(gpu, shape, kernel_config)?;
        let buffers = forward::Buffers {
            batches,
            stacks,
            weights,
            observations,
            acts: acts_of,
            head,
            layer_norm_stats,
            dones_and_masks,
            memory,
        };
        let forward = kernels.bind(gpu, buffers)?.commands(0, &batch, 2);

        let kernels = backward::Kernels::new(gpu, shape, kernel_config)?;
        let buffers = backward::Buffers {
            batches,
            stacks,
            weights,
            acts: acts_of,
            layer_norm_stats,
            grads: grads_of,
            dones_and_masks: memory.map(|_| dones_and_masks),
        };
        let mut backward = kernels.bind(gpu, buffers)?.commands(0, &batch);
        let kernel = weight_gradient::kernel(gpu, kernel_config)?;
        let split = weight_gradient::Split { count: splits, stride: layout.params, tiles: count, pad: 0 };
        let buffers = weight_gradient::Buffers {
            batches,
            split: &gpu.uniform("split", &split)?,
            tiles: &gpu.upload("tiles", &tiles)?,
            observations,
            acts: acts_of,
            layer_norm_stats,
            grads: grads_of,
            dones_and_masks,
            partials: get("partial sums")?,
        };
        let group = weight_gradient::bind(gpu, &kernel, buffers)?;
        let grid = weight_gradient::groups(count, splits);
        backward.push(Command::dispatch_at(&kernel, &group, 0, 0, grid));
        let summed = [params, get("partial sums")?, get("gradient")?, get("squares")?];
        backward.push(reduce::command(gpu, layout, splits, 0, summed)?);
        Ok(Self { forward, backward, bytes: [observed, acts, grads], arena, gpu: gpu.clone() })
    }

    /// Runs both passes once and returns the gradients, in the order of the parameter buffer.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn sums(&self) -> Result<Vec<f32>> {
        let mut recorder = Recorder::new(&self.gpu);
        recorder.run(&self.forward)?;
        recorder.run(&self.backward)?;
        self.gpu.read(self.arena.get("gradient")?)
    }
}

/// Writes weights, observations and gradients at the heads: the same numbers for every configuration.
fn fill(
    gpu: &Gpu,
    layout: &Layout,
    arena: &Arena,
    kernel_config: &KernelConfig,
    (rows, inputs): (u32, usize),
    room: u32,
) -> Result<()> {
    let mut stream = Stream::new(1, 77);
    let mut params = vec![0f32; layout.params as usize * 4];
    for tensor in &layout.tensors {
        let [rows, columns] = tensor.shape;
        let spread = 1.0 / (rows as f64).sqrt();
        for row in 0..rows {
            let start = tensor.first + row * tensor.stride;
            params[start..start + columns].fill_with(|| (spread * stream.normal()) as f32);
        }
    }
    gpu.write(arena.get("params")?, 0, bytemuck::cast_slice(&params))?;
    // A prime period, so that rows differ.
    let period: Vec<f64> = (0..10_007).map(|_| stream.normal()).collect();
    let precision = kernel_config.storage.precision();
    let values: Vec<f32> = period.iter().map(|x| *x as f32).cycle().take(inputs).collect();
    gpu.write(arena.get("observations")?, 0, &stored(&values, precision))?;
    let tile = kernel_config.block() as usize;
    let mut gradients = vec![0f32; layout.grad_rows as usize * room as usize * 4];
    for (stack, outputs) in [(0, layout.shape.actions), (1, 1)] {
        for output in 0..outputs as usize {
            let feature = layout.head_gradient(stack) as usize + output;
            for row in 0..rows as usize * 4 {
                let quad = row / 4;
                let block = quad / tile * layout.grad_rows as usize + feature;
                gradients[(block * tile + quad % tile) * 4 + row % 4] =
                    (GRADIENT * period[(feature * 1009 + row) % period.len()]) as f32;
            }
        }
    }
    gpu.write(arena.get("gradients")?, 0, &stored(&gradients, precision))
}

/// Whether two results of [`SyntheticPass::sums`] are finite and differ by at most `tolerance` times the largest expected value.
pub(super) fn agree(found: &[f32], expected: &[f32], tolerance: f64) -> bool {
    let scale = expected.iter().fold(0f64, |m, x| m.max(f64::from(*x).abs()));
    let pairs = found.iter().zip(expected);
    let apart = pairs.fold(0f64, |m, (a, b)| m.max((f64::from(*a) - f64::from(*b)).abs()));
    found.len() == expected.len()
        && scale > 0.0
        && apart <= tolerance * scale
        && found.iter().all(|x| x.is_finite())
}

/// Bytes of values as a buffer of this precision holds them.
pub(crate) fn stored(values: &[f32], precision: Precision) -> Vec<u8> {
    match precision {
        Precision::F32 => bytemuck::cast_slice(values).to_vec(),
        Precision::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn only_rounding_agrees() {
        assert!(agree(&[1.0, 2.0], &[1.00001, 2.0], 1e-4));
        assert!(!agree(&[1.0, 2.1], &[1.0, 2.0], 1e-4));
        assert!(!agree(&[1.0, f32::NAN], &[1.0, 2.0], 1e-4));
        assert!(!agree(&[0.0, 0.0], &[0.0, 0.0], 1e-4), "all zeros: nothing was computed");
    }
}
