//! Kernels for four rows an invocation, without workgroup memory: for software adapters, and for GPUs where no block of rows fits.

pub mod backward;
pub mod forward;
pub mod weight_gradient;
pub mod weight_gradient_subgroup;
