//! The WGSL sources below `shaders/`: one macro that embeds them, and the modules and conditions that they share.

pub mod constants;

use crate::gpu::{Library, Shader};

/// The shader `shaders/<name>.wgsl`, which may import the modules of [`LIBRARY`].
macro_rules! shader {
    ($name:literal) => {
        $crate::gpu::Shader {
            name: $name,
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")),
            library: &$crate::shaders::LIBRARY,
        }
    };
}
pub(crate) use shader;

/// Modules that kernels import as `package::<name>`, and every condition that sources may ask for.
pub static LIBRARY: Library = Library {
    modules: &[
        ("scalars", constants::scalars::WGSL),
        ("network", constants::network::WGSL),
        ("weight_tile", constants::weight_tile::WGSL),
        ("sections", constants::sections::WGSL),
        ("lib/numeric", include_str!("../shaders/lib/numeric.wgsl")),
        ("lib/random", include_str!("../shaders/lib/random.wgsl")),
        ("lib/network", include_str!("../shaders/lib/network.wgsl")),
        ("lib/quad", include_str!("../shaders/lib/quad.wgsl")),
        ("lib/activation", include_str!("../shaders/lib/activation.wgsl")),
        ("lib/squash", include_str!("../shaders/lib/squash.wgsl")),
        ("lib/product", include_str!("../shaders/lib/product.wgsl")),
        ("lib/branch", include_str!("../shaders/lib/branch.wgsl")),
        ("lib/observe", include_str!("../shaders/lib/observe.wgsl")),
        ("lib/episode", include_str!("../shaders/lib/episode.wgsl")),
        ("lib/cooperative", include_str!("../shaders/lib/cooperative.wgsl")),
        ("lib/weights", include_str!("../shaders/lib/weights.wgsl")),
        ("lib/forward", include_str!("../shaders/lib/forward.wgsl")),
        ("lib/layer_norm", include_str!("../shaders/lib/layer_norm.wgsl")),
        ("lib/dense", include_str!("../shaders/lib/dense.wgsl")),
        ("lib/gru", include_str!("../shaders/lib/gru.wgsl")),
        ("lib/weight_gradient", include_str!("../shaders/lib/weight_gradient.wgsl")),
        ("lib/bar", include_str!("../shaders/lib/bar.wgsl")),
    ],
    conditions: &[
        "agent_steps",
        "continuous",
        "cooperative",
        "gelu",
        "keep",
        "live",
        "matrix16",
        "matrix8",
        "native",
        "packed",
        "recurrent",
        "relu",
        "rings",
        "rounded",
        "silu",
        "squash",
        "subgroup_broadcast",
        "table",
        "tanh",
        "texture",
        "textures",
        "unrolled",
        "volume",
        "wide_loads",
    ],
};

/// A shader of the caller's own that may import the modules of this library, `package::lib::observe` and
/// `package::lib::episode` above all.
#[must_use]
pub const fn shader_with_library(name: &'static str, source: &'static str) -> Shader {
    Shader { name, source, library: &LIBRARY }
}
