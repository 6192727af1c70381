//! Runs the kernels of the networks on the test device, in every configuration that its adapter supports.

use std::fmt;

use half::f16;

use super::reference::{Case, places};
use super::*;
use crate::gpu::{Arena, Command, Gpu, Recorder};
use crate::nn::synthetic_pass::stored;

/// The shared device with the kernels of software rasterisers, and with those of GPUs, as users run them: checks would
/// make networks compile three times as long.
pub(crate) fn both_classes() -> [crate::gpu::Gpu; 2] {
    [Class::Software, Class::Hardware].map(|class| crate::testing::unchecked_gpu().with_class(class))
}

/// A kernel configuration, and the test device with the class of kernels that the configuration belongs to.
#[derive(Clone)]
pub(super) struct Setup {
    pub gpu: Gpu,
    pub kernel_config: KernelConfig,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.gpu.class(), self.kernel_config)
    }
}

/// The configurations of both classes that together reach every line of the kernels, as far as the adapter supports them. Other
/// configurations are reported as skipped.
pub(super) fn setups(precision: Precision) -> Vec<Setup> {
    let mut all = Vec::new();
    for gpu in both_classes() {
        let mut kernel_configs = representative(gpu.class());
        kernel_configs.retain(|config| config.cooperative.is_none());
        if precision == Precision::F16 && gpu.class() == Class::Hardware {
            let matrices = Cooperative::listed(&gpu);
            if matrices.is_empty() {
                crate::testing::skip("the adapter has no cooperative matrices");
            }
            // Kernels planned for wide subgroups are correct on narrower ones, so they are tested here, too.
            let most = gpu.device().limits().max_compute_invocations_per_workgroup;
            let wider = |matrices: Cooperative| {
                let wider = [32, 64]
                    .map(|subgroup| Cooperative { subgroup: subgroup.max(matrices.subgroup), ..matrices });
                let fitting = move |wide: &Cooperative| wide.weight_workgroup() <= most;
                std::iter::once(matrices).chain(wider.into_iter().filter(fitting))
            };
            let matrices = matrices.into_iter().flat_map(wider);
            kernel_configs.extend(matrices.map(|matrices| KernelConfig::cooperative(gpu.class(), matrices)));
        }
        all.extend(kernel_configs.into_iter().map(|kernel_config| Setup { gpu: gpu.clone(), kernel_config }));
    }
    // Unrolled loops take long to compile: `layers_of_1024_are_whole` tests them.
    all.retain(|setup| setup.kernel_config.storage.precision() == precision && !setup.kernel_config.unrolled);
    let (supported, skipped): (Vec<_>, Vec<_>) = all.into_iter().partition(|setup| {
        let config = setup.kernel_config;
        (!config.subgroup_broadcast || KernelConfig::can_subgroup_broadcast(&setup.gpu))
            && (config.storage != Storage::F16
                || setup.gpu.device().features().contains(wgpu::Features::SHADER_F16))
    });
    skipped
        .iter()
        .for_each(|setup| crate::testing::skip(&format!("the adapter lacks features for {setup:?}")));
    supported
}

/// Results of the kernels.
pub(crate) struct Run {
    pub logits: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    /// Bytes of the buffers of activations and of their gradients.
    pub acts: Vec<u8>,
    pub grads: Vec<u8>,
    pub gradient: Vec<f32>,
}

impl Case {
    /// The offsets that only some networks need: of a GRU's states and of the global states.
    fn offsets(&self) -> Batch {
        Batch {
            recurrent: RecurrentPart {
                length: self.shape.chunk,
                chunk: self.shape.chunk,
                steps: self.slots as u32,
                endings: (self.slots * self.quads) as u32,
                ..RecurrentPart::default()
            },
            first_state: (self.rows() / 4) as u32 * self.shape.obs_dim,
            state_dim: self.shape.stored_state(),
            ..Batch::default()
        }
    }

    /// Forward, backward, weight gradients and their sum on the device, with bounds checks. The gradient at the
    /// heads is multiplied by `scale` and the result divided by it.
    pub(super) fn run(&self, setup: &Setup, scale: f64) -> Run {
        self.execute(setup, scale, None)
    }

    /// A GRU's forward pass alone, in dispatches of `length` slots, each of which continues from the last one's states.
    pub(super) fn walk(&self, setup: &Setup, length: usize) -> Run {
        self.execute(setup, 1.0, Some(length))
    }

    fn execute(&self, setup: &Setup, scale: f64, walk: Option<usize>) -> Run {
        let Setup { gpu, kernel_config } = setup;
        let layout = self.layout();
        let kernel_config = &kernel_config.for_layout(gpu.class(), &layout);
        let precision = kernel_config.storage.precision();
        let quads = (self.rows() / 4) as u32;
        let room = kernel_config.room(u64::from(quads)) as u32;
        let actions = self.shape.actions;
        let batch = Batch {
            rows: quads,
            stride: room,
            agents: self.shape.agents,
            quads: self.quads as u32,
            obs_dim: self.shape.obs_dim,
            starts_sum: 1,
            forward: ForwardPart { keep: 1, head_critic: actions * room, ..ForwardPart::default() },
            acts: layout.act_rows,
            grads: layout.grad_rows,
            ..self.offsets()
        };
        let per_slot = self.shape.agents * self.quads as u32;
        let batches: Vec<_> = (0..self.slots)
            .step_by(walk.unwrap_or(self.slots))
            .map(|first| match walk {
                None => batch,
                Some(length) => Batch {
                    first_slot: first as u32,
                    rows: per_slot * length.min(self.slots - first) as u32,
                    recurrent: RecurrentPart { length: length as u32, store_states: 1, ..batch.recurrent },
                    forward: ForwardPart {
                        head_actor: per_slot * first as u32,
                        head_critic: batch.forward.head_critic + per_slot * first as u32,
                        ..batch.forward
                    },
                    ..batch
                },
            })
            .collect();
        let table = &gpu.uniform_table("batches", &batches).unwrap();
        let stacks = &forward::upload_stacks(gpu, &layout.stacks).unwrap();
        let params = &gpu.upload("params", &self.params).unwrap();
        let observations = &gpu.upload("observations", &stored(&self.observations, precision)).unwrap();
        // Buffers start as NaN, so that a read before the first write shows in the results.
        let blank = |rows: u32, bytes: u64| {
            let nan =
                if bytes == 4 { f32::NAN.to_le_bytes().to_vec() } else { f16::NAN.to_le_bytes().to_vec() };
            gpu.upload("blank", &nan.repeat((rows.max(1) * room * 4) as usize)).unwrap()
        };
        let acts = &blank(layout.act_rows, precision.bytes());
        let grads = &blank(layout.grad_rows, precision.bytes());
        let (head, layer_norm_stats) = (&blank(actions + 1, 4), &blank(layout.layer_norm_stats_rows, 4));
        let plan = WorkingWeights::plan(&layout, kernel_config);
        let arena = Arena::allocate(gpu, &plan).unwrap();
        let working = arena.get("working weights").unwrap();
        let weights = &WorkingWeights::new(gpu, &layout, kernel_config, stacks, params, working).unwrap();
        let mut recorder = Recorder::new(gpu);
        recorder.run(weights.refresh()).unwrap();

        let kernels = forward::Kernels::new(gpu, &self.shape, kernel_config).unwrap();
        let dones_and_masks = &gpu.upload("dones_and_masks", &self.dones_and_masks).unwrap();
        let states = &gpu.upload("states", &[&self.states[..], &[f32::NAN; 4]].concat()).unwrap();
        let memory = self.shape.recurrent().then_some(forward::Memory { states });
        let buffers = forward::Buffers {
            batches: table,
            stacks,
            weights,
            observations,
            acts,
            head,
            layer_norm_stats,
            dones_and_masks,
            memory,
        };
        let pass = kernels.bind(gpu, buffers).unwrap();
        for (index, batch) in (0..).zip(&batches) {
            recorder.run(&pass.commands(index, batch, 2)).unwrap();
        }
        let heads: Vec<f32> = gpu.read(head).unwrap();
        let row = |i: usize| {
            let start = i * room as usize * 4;
            heads[start..start + self.rows()].to_vec()
        };

        let (logits, values) = ((0..actions as usize).map(row).collect(), vec![row(actions as usize)]);
        if walk.is_some() {
            return Run { logits, values, acts: vec![], grads: vec![], gradient: vec![] };
        }

        let tile = kernel_config.block() as usize;
        let mut seed = vec![f32::NAN; (layout.grad_rows * room * 4) as usize];
        for (stack, weights) in [(0, &self.loss_logits), (1, &self.loss_values)] {
            for (c, values) in weights.iter().enumerate() {
                let feature = layout.head_gradient(stack) as usize + c;
                for (i, value) in values.iter().enumerate() {
                    let quad = i / 4;
                    let block = quad / tile * layout.grad_rows as usize + feature;
                    seed[(block * tile + quad % tile) * 4 + i % 4] = (value * scale) as f32;
                }
            }
        }
        gpu.write(grads, 0, &stored(&seed, precision)).unwrap();
        let kernels = backward::Kernels::new(gpu, &self.shape, kernel_config).unwrap();
        let buffers = backward::Buffers {
            batches: table,
            stacks,
            weights,
            acts,
            layer_norm_stats,
            grads,
            dones_and_masks: memory.map(|_| dones_and_masks),
        };
        let pass = kernels.bind(gpu, buffers).unwrap();
        recorder.run(&pass.commands(0, &batch)).unwrap();

        let splits = 3;
        let tiles = weight_gradient::tiles(&layout, kernel_config);
        let zeros =
            |count: u32| gpu.upload("zeros", &vec![0f32; (count * layout.params * 4) as usize]).unwrap();
        let (partials, gradient) = (&zeros(splits), &zeros(1));
        let kernel = weight_gradient::kernel(gpu, kernel_config).unwrap();
        let split = weight_gradient::Split {
            count: splits,
            stride: layout.params,
            tiles: tiles.len() as u32,
            pad: 0,
        };
        let buffers = weight_gradient::Buffers {
            batches: table,
            split: &gpu.uniform("split", &split).unwrap(),
            tiles: &gpu.upload("tiles", &tiles).unwrap(),
            observations,
            acts,
            layer_norm_stats,
            grads,
            dones_and_masks,
            partials,
        };
        let group = weight_gradient::bind(gpu, &kernel, buffers).unwrap();
        let grid = weight_gradient::groups(tiles.len() as u32, splits);
        recorder.run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();
        let step = &gpu.upload("step", &vec![0f32; reduce::tiles(&layout).len()]).unwrap();
        let sum = reduce::command(gpu, &layout, splits, 0, [params, partials, gradient, step]).unwrap();
        recorder.run(&[sum]).unwrap();
        let mut gradient: Vec<f32> = gpu.read(gradient).unwrap();
        gradient.iter_mut().for_each(|g| *g = (f64::from(*g) / scale) as f32);
        Run { logits, values, acts: gpu.read(acts).unwrap(), grads: gpu.read(grads).unwrap(), gradient }
    }

    /// Asserts that the gradients of a run are these.
    pub fn compare_gradients(&self, what: &str, run: &Run, differences: &[Vec<f64>], tolerance: f64) {
        for (tensor, expected) in self.layout().tensors.iter().zip(differences) {
            let got: Vec<f32> = places(tensor).map(|at| run.gradient[at]).collect();
            let what = format!("{what}: {}", tensor.name);
            Self::compare(&what, &[got], std::slice::from_ref(expected), tolerance);
        }
    }
}
