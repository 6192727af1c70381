//! Kernels for a block of rows a workgroup whose activations lie in buffers and pass through workgroup memory part by part: for layers of
//! any width, GRUs and matrix units.

pub mod backward;
pub mod forward;
pub mod weight_gradient;
pub mod weight_gradient_cooperative;
