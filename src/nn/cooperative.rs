//! Cooperative matrices: which of the adapter's the kernels use, and whether they compute what they should.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::autotune::alike;
use super::layout::Layout;
use super::precision::{KernelConfig, Storage};
use super::shape::{Activation, Shape};
use super::synthetic_pass::SyntheticPass;
use crate::Result;
use crate::gpu::Gpu;

/// Cooperative matrices, f16 times f16 added up in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cooperative {
    /// Rows and columns of a matrix: 8 or 16.
    pub size: u32,
    /// Invocations of a subgroup, at most: smaller ones do the same work together.
    pub subgroup: u32,
}

impl Cooperative {
    /// The shapes among those that the adapter lists that the kernels can use, the largest first.
    #[must_use]
    pub fn listed(gpu: &Gpu) -> Vec<Self> {
        let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
        let subgroup = gpu.info().subgroup_max_size;
        // Blocks of 64 rows are made of them.
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
        sizes.map(|size| Self { size, subgroup }).filter(|matrices| matrices.squares() <= most).collect()
    }

    /// Those of [`Cooperative::listed`] with which small networks came to the same gradients as without, tried once in a
    /// process for an adapter: drivers are reported that list matrices and multiply wrongly.
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
        let expected = gradients(gpu, &KernelConfig::plain(gpu.class(), Storage::F16))?;
        let proven: Vec<_> = listed
            .into_iter()
            .filter(|matrices| {
                let found = gradients(gpu, &KernelConfig::cooperative(gpu.class(), *matrices));
                let right = found.as_ref().is_ok_and(|found| alike(found, &expected, 2e-2));
                if !right {
                    let error = found.err().map(|error| error.to_string());
                    tracing::warn!(?matrices, error, "not used: the adapter multiplies them wrongly");
                }
                right
            })
            .collect();
        known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, proven.clone());
        Ok(proven)
    }

    /// Workgroup of the kernel for the weights' gradients: a subgroup for every two by two matrices of 64 by 64.
    pub(super) fn squares(self) -> u32 {
        let across = 64 / (2 * self.size);
        across * across * self.subgroup
    }
}

/// Of networks with sizes above and below every tile, on some blocks of rows. With tanh: where ReLU bends, rounding alone
/// changes gradients by much.
fn gradients(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Vec<f32>> {
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
    use super::*;

    #[test]
    fn listed_matrices_multiply_as_register_tiles_do() {
        let gpu = crate::testing::gpu();
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
            assert!(alike(&found, &expected, 5e-3), "{matrices:?}");
            let mut halved = expected.clone();
            halved.iter_mut().for_each(|x| *x *= 0.5);
            assert!(!alike(&found, &halved, 5e-3));
        }
    }
}
