//! Policies for other programs: [`Policy::export_onnx`] writes the whole way from raw features to actions as an ONNX graph,
//! [`Policy::export_safetensors`] the plain tensors. `docs/export.md` describes both files.
//!
//! **Order of the files.** Each file imports only files named before it: `tensors` (by name), `preparation` (scaling and normalisation),
//! `safetensors`. For ONNX: `network` (the networks as plain matrices), `options`, `calibration` (ranges of activations), `builder`
//! (nodes and tensors of a file), `quantization` (weights of less than 32 bits), `layers` (networks as nodes), `onnx` (the graph) with
//! `onnx_actions` (its end), and `training_bars` (observations for a calibration).

#[cfg(feature = "onnx")]
mod builder;
#[cfg(feature = "onnx")]
mod calibration;
#[cfg(feature = "onnx")]
mod layers;
#[cfg(feature = "onnx")]
mod network;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod onnx_actions;
#[cfg(feature = "onnx")]
mod options;
mod preparation;
#[cfg(feature = "onnx")]
mod quantization;
mod safetensors;
mod tensors;
#[cfg(all(test, feature = "onnx", feature = "market"))]
mod testing;
#[cfg(all(test, feature = "onnx", feature = "market"))]
mod tests;
#[cfg(all(feature = "onnx", feature = "market"))]
mod training_bars;

#[cfg(feature = "onnx")]
pub use options::{Calibration, ExportWeights, OnnxOptions};

use super::Policy;
