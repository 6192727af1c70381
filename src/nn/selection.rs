//! Chooses the configuration of the networks' kernels from the features and limits of an adapter.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::block::Blocks;
use super::cooperative::Cooperative;
use super::kernel_config::{KernelConfig, MAX_LOOP_ITERATIONS, texture_rows};
use super::layout::Layout;
use super::precision::{Precision, Storage};
use super::shape::{Activation, Shape};
use super::synthetic_pass::{SyntheticPass, agree};
use crate::gpu::{Class, Gpu};
use crate::{Error, Result};

/// Storage buffers of [`crate::ppo::gradient`], which configurations with blocks need.
pub(crate) const BLOCK_BUFFERS: u32 = 11;

impl Storage {
    /// The storage type for a precision on this adapter.
    #[must_use]
    pub fn of(gpu: &Gpu, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 if gpu.device().features().contains(wgpu::Features::SHADER_F16) => Self::F16,
            Precision::F16 => Self::Packed,
        }
    }
}

impl KernelConfig {
    /// The default for this adapter and these networks, with `quads` quads of environments.
    ///
    /// # Errors
    /// [`Error::Config`] for networks whose loops a software adapter would stop early.
    pub fn new(gpu: &Gpu, precision: Precision, layout: &Layout, quads: u32) -> Result<Self> {
        let storage = Storage::of(gpu, precision);
        let rows = texture_rows(layout.working);
        let subgroup_broadcast = gpu.class() == Class::Software
            && Self::can_subgroup_broadcast(gpu)
            && Self::subgroup_broadcast(storage).suits(layout, quads)
            && rows <= gpu.device().limits().max_texture_dimension_2d;
        let kernel_config = match Self::on_matrix_units(gpu, storage)?.filter(|d| d.suits(layout, quads)) {
            Some(cooperative) => cooperative,
            None if subgroup_broadcast => Self::subgroup_broadcast(storage),
            None => Self::in_blocks(gpu, storage, layout, quads)
                .or_else(|| Self::in_stream(gpu, storage, layout, quads))
                .unwrap_or_else(|| Self::plain(gpu.class(), storage)),
        };
        let kernel_config = kernel_config.for_layout(gpu.class(), layout);
        let iterations = kernel_config.loop_iterations(layout);
        if gpu.stops_long_loops() && iterations > MAX_LOOP_ITERATIONS {
            return Err(Error::config(
                "hidden",
                format!(
                    "software adapters (llvmpipe) stop loops after 65,535 iterations; these networks need {iterations}: \
                     reduce `hidden`, the number of agents or `chunk_length`"
                ),
            ));
        }
        Ok(kernel_config)
    }

    /// The configuration that keeps blocks of rows in workgroup memory, on GPUs and for networks that fit.
    fn in_blocks(gpu: &Gpu, storage: Storage, layout: &Layout, quads: u32) -> Option<Self> {
        let limits = gpu.device().limits();
        let can =
            gpu.class() == Class::Hardware && limits.max_storage_buffers_per_shader_stage >= BLOCK_BUFFERS;
        let plain = Self::plain(gpu.class(), storage);
        Blocks::for_layout(layout, limits.max_compute_workgroup_storage_size)
            .filter(|_| can)
            .map(|blocks| Self { blocks: Some(blocks), ..plain })
            .find(|config| config.suits(layout, quads))
    }

    /// The configuration whose layers pass through workgroup memory part by part, on GPUs and where blocks do not straddle networks.
    fn in_stream(gpu: &Gpu, storage: Storage, layout: &Layout, quads: u32) -> Option<Self> {
        if gpu.class() != Class::Hardware {
            return None;
        }
        let plain = Self::plain(gpu.class(), storage);
        Blocks::within(gpu.device().limits().max_compute_workgroup_storage_size)
            .map(|blocks| Self { stream: Some(blocks), ..plain })
            .find(|config| config.suits(layout, quads))
    }

    /// Matrix units are used by GPUs in f16; software adapters emulate them and gain nothing.
    fn on_matrix_units(gpu: &Gpu, storage: Storage) -> Result<Option<Self>> {
        if gpu.class() != Class::Hardware || storage != Storage::F16 {
            return Ok(None);
        }
        let proven = Cooperative::proven(gpu)?;
        Ok(proven.first().map(|matrices| Self::cooperative(gpu.class(), *matrices)))
    }

    /// Whether the adapter runs [`KernelConfig::subgroup_broadcast`].
    #[must_use]
    pub fn can_subgroup_broadcast(gpu: &Gpu) -> bool {
        let needed = wgpu::Features::SUBGROUP | wgpu::Features::SHADER_INT64;
        let info = gpu.info();
        gpu.device().features().contains(needed) && info.subgroup_min_size == 8 && info.subgroup_max_size == 8
    }
}

impl Cooperative {
    /// The matrices listed by the adapter that the kernels can use, the largest first.
    #[must_use]
    pub fn listed(gpu: &Gpu) -> Vec<Self> {
        let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
        let subgroup = gpu.info().subgroup_max_size;
        // A block of 64 quads of rows is a whole number of these subgroups.
        if !gpu.device().features().contains(needed) || !matches!(subgroup, 8 | 16 | 32 | 64) {
            return Vec::new();
        }
        let listed = |size: u32| {
            gpu.cooperative_matrices().iter().any(|shape| {
                [shape.m_size, shape.n_size, shape.k_size] == [size; 3]
                    && shape.ab_type == wgpu::CooperativeScalarType::F16
                    && shape.cr_type == wgpu::CooperativeScalarType::F32
            })
        };
        let most = gpu.device().limits().max_compute_invocations_per_workgroup;
        let sizes = [16, 8].into_iter().filter(|size| listed(*size));
        sizes
            .map(|size| Self { size, subgroup })
            .filter(|matrices| matrices.weight_workgroup() <= most)
            .collect()
    }

    /// The matrices of [`Cooperative::listed`] that give small networks the same gradients as the kernels without matrices.
    /// Tried once per process and adapter, because some drivers list matrices and multiply them wrongly.
    ///
    /// # Errors
    /// If the kernels without matrices fail.
    pub fn proven(gpu: &Gpu) -> Result<Vec<Self>> {
        static PROVEN: OnceLock<Mutex<HashMap<String, Vec<Cooperative>>>> = OnceLock::new();
        let listed = Self::listed(gpu);
        if listed.is_empty() {
            return Ok(listed);
        }
        let info = gpu.info();
        let key = format!("{} {:?} {} {}", info.name, info.backend, info.driver, info.driver_info);
        let known = PROVEN.get_or_init(Mutex::default);
        if let Some(proven) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(proven.clone());
        }
        let expected = probe(gpu, &KernelConfig::plain(gpu.class(), Storage::F16))?;
        let proven: Vec<_> = listed
            .into_iter()
            .filter(|matrices| {
                let found = probe(gpu, &KernelConfig::cooperative(gpu.class(), *matrices));
                let right = found.as_ref().is_ok_and(|found| agree(found, &expected, 2e-2));
                if !right {
                    let error = found.err().map(|error| error.to_string());
                    tracing::warn!(
                        ?matrices,
                        error,
                        "matrix units not used: the adapter multiplies them wrongly"
                    );
                }
                right
            })
            .collect();
        known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, proven.clone());
        Ok(proven)
    }
}

/// Gradients of small networks whose sizes lie below and above every tile, on several blocks of rows. The activation is tanh:
/// at the kink of ReLU, rounding alone changes gradients by much.
fn probe(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Vec<f32>> {
    let shape = Shape {
        agents: 2,
        obs_dim: 19,
        actions: 3,
        hidden: vec![70, 37],
        activation: Activation::Tanh,
        ..Shape::default()
    };
    SyntheticPass::new(gpu, &Layout::new(&shape)?, kernel_config, 5, 4)?.sums()
}

#[cfg(test)]
mod tests {
    use super::super::shape::Sharing;
    use super::*;

    #[test]
    fn listed_matrices_multiply_as_register_tiles_do() {
        let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
        let listed = Cooperative::listed(&gpu);
        if listed.is_empty() {
            crate::testing::skip("the adapter has no cooperative matrices");
        }
        assert_eq!(Cooperative::proven(&gpu).unwrap(), listed);
        for matrices in listed {
            // More than one pass over the columns and over the inputs, and a block that is not full.
            let shape = Shape {
                agents: 3,
                obs_dim: 67,
                actions: 5,
                hidden: vec![150, 70],
                activation: Activation::Tanh,
                ..Shape::default()
            };
            let layout = Layout::new(&shape).unwrap();
            let [found, expected] = [
                KernelConfig::cooperative(gpu.class(), matrices),
                KernelConfig::plain(gpu.class(), Storage::F16),
            ]
            .map(|kernel_config| {
                SyntheticPass::new(&gpu, &layout, &kernel_config, 7, 3).unwrap().sums().unwrap()
            });
            assert!(agree(&found, &expected, 5e-3), "{matrices:?}");
            let mut halved = expected.clone();
            halved.iter_mut().for_each(|x| *x *= 0.5);
            assert!(!agree(&found, &halved, 5e-3));
        }
    }

    /// On GPUs every network passes through workgroup memory, whole or part by part, unless blocks of rows would straddle networks.
    #[test]
    fn gpus_take_blocks_for_all_networks() {
        let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
        let config = |hidden: &[u32], chunk, sharing, quads| {
            let hidden = hidden.to_vec();
            let shape =
                Shape { agents: 4, obs_dim: 18, actions: 3, hidden, chunk, sharing, ..Shape::default() };
            KernelConfig::new(&gpu, Precision::F32, &Layout::new(&shape).unwrap(), quads).unwrap()
        };
        let sizes = |config: &KernelConfig| {
            [config.blocks, config.stream].map(|blocks| blocks.map(|blocks| [blocks.quads, blocks.width]))
        };
        for (hidden, chunk, quads, expected) in [
            (&[64, 64][..], 0, 256, [Some([16, 64]), None]),
            (&[512, 512], 0, 256, [None, Some([16, 64])]),
            (&[64, 64], 10, 256, [None, Some([16, 64])]),
            (&[64, 64], 10, 3, [None, Some([16, 64])]),
        ] {
            let config = config(hidden, chunk, Sharing::Shared, quads);
            assert_eq!(sizes(&config), expected, "{hidden:?}, {chunk}");
        }
        let separate = |quads| sizes(&config(&[512], 0, Sharing::Separate, quads));
        assert_eq!(separate(24), [None, Some([8, 64])]);
        assert_eq!(separate(3), [None, None]);
    }

    #[test]
    fn networks_that_llvmpipe_would_stop_early_are_refused_with_a_way_out() {
        for gpu in crate::nn::testing::both_classes() {
            refuse_long_loops(&gpu);
        }
    }

    fn refuse_long_loops(gpu: &Gpu) {
        let shape = Shape { obs_dim: 4096, hidden: vec![1024; 4], chunk: 64, ..Shape::default() };
        let layout = Layout::new(&shape).unwrap();
        let found = KernelConfig::new(gpu, Precision::F32, &layout, 8);
        if !gpu.stops_long_loops() {
            assert!(found.is_ok());
            return;
        }
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with("setting `hidden`: software adapters"), "{error}");
        assert!(error.contains("reduce `hidden`"), "{error}");
    }
}
