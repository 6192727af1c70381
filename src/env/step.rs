//! The step kernel of environments that are WGSL functions ([`super::DeviceEnv`]): one invocation owns one environment, and plays one
//! step of it or begins its first episode.
//!
//! Shapes: state u32 `[row][env]`, floats stored as bits; all other buffers as in [`super::RolloutBuffers`].

use std::sync::LazyLock;

use super::functions;
use crate::gpu::{Class, Shader, Variant};
use crate::nn::Storage;

/// The kernel's entry point.
const ENTRY: Shader = crate::shaders::shader!("env/step");

/// The kernel's shader without the environment.
pub(super) fn shader() -> Shader {
    static SOURCE: LazyLock<String> = LazyLock::new(|| functions::with_entry(&ENTRY));
    Shader { source: &SOURCE, ..ENTRY }
}

/// The kernel configuration for an adapter class and the observations' storage.
pub(super) fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}
