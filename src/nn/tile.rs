//! Kernels whose invocations take four rows each, with activations in buffers: for software adapters, and for networks per agent whose
//! environments fill no block of rows.

pub mod backward;
pub mod forward;
pub mod weight_gradient;
pub mod weight_gradient_subgroup;
