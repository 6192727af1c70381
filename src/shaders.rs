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
        ("optimizer", constants::optimizer::WGSL),
        ("row_tile", constants::row_tile::WGSL),
        ("sections", constants::sections::WGSL),
        ("lib/numeric", include_str!("../shaders/lib/numeric.wgsl")),
        ("lib/random", include_str!("../shaders/lib/random.wgsl")),
        ("lib/network", include_str!("../shaders/lib/network.wgsl")),
        ("lib/quad", include_str!("../shaders/lib/quad.wgsl")),
        ("lib/activation", include_str!("../shaders/lib/activation.wgsl")),
        ("lib/optimizer_step", include_str!("../shaders/lib/optimizer_step.wgsl")),
        ("lib/minibatch", include_str!("../shaders/lib/minibatch.wgsl")),
        ("lib/fold", include_str!("../shaders/lib/fold.wgsl")),
        ("lib/slots", include_str!("../shaders/lib/slots.wgsl")),
        ("lib/draw", include_str!("../shaders/lib/draw.wgsl")),
        ("lib/squash", include_str!("../shaders/lib/squash.wgsl")),
        ("lib/product", include_str!("../shaders/lib/product.wgsl")),
        ("lib/branch", include_str!("../shaders/lib/branch.wgsl")),
        ("lib/observe", include_str!("../shaders/lib/observe.wgsl")),
        ("lib/episode", include_str!("../shaders/lib/episode.wgsl")),
        ("lib/cooperative", include_str!("../shaders/lib/cooperative.wgsl")),
        ("lib/weights", include_str!("../shaders/lib/weights.wgsl")),
        ("lib/forward", include_str!("../shaders/lib/forward.wgsl")),
        ("lib/target", include_str!("../shaders/lib/target.wgsl")),
        ("lib/sequences", include_str!("../shaders/lib/sequences.wgsl")),
        ("lib/backward", include_str!("../shaders/lib/backward.wgsl")),
        ("lib/lanes_forward", include_str!("../shaders/lib/lanes_forward.wgsl")),
        ("lib/lanes_backward", include_str!("../shaders/lib/lanes_backward.wgsl")),
        ("lib/matrix_forward", include_str!("../shaders/lib/matrix_forward.wgsl")),
        ("lib/matrix_backward", include_str!("../shaders/lib/matrix_backward.wgsl")),
        ("lib/layer_norm", include_str!("../shaders/lib/layer_norm.wgsl")),
        ("lib/dense", include_str!("../shaders/lib/dense.wgsl")),
        ("lib/gru", include_str!("../shaders/lib/gru.wgsl")),
        ("lib/weight_gradient", include_str!("../shaders/lib/weight_gradient.wgsl")),
        ("lib/block", include_str!("../shaders/lib/block.wgsl")),
        ("lib/block_forward", include_str!("../shaders/lib/block_forward.wgsl")),
        ("lib/block_backward", include_str!("../shaders/lib/block_backward.wgsl")),
        ("lib/heads", include_str!("../shaders/lib/heads.wgsl")),
        ("lib/loss", include_str!("../shaders/lib/loss.wgsl")),
        ("lib/account", include_str!("../shaders/lib/account.wgsl")),
        ("lib/total", include_str!("../shaders/lib/total.wgsl")),
        ("lib/advantages", include_str!("../shaders/lib/advantages.wgsl")),
        ("lib/metrics", include_str!("../shaders/lib/metrics.wgsl")),
        ("lib/observation_stats", include_str!("../shaders/lib/observation_stats.wgsl")),
        ("lib/scaling", include_str!("../shaders/lib/scaling.wgsl")),
        ("lib/bar", include_str!("../shaders/lib/bar.wgsl")),
        ("lib/obv", include_str!("../shaders/lib/obv.wgsl")),
    ],
    conditions: &[
        "agent_steps",
        "continuous",
        "cooperative",
        "gelu",
        "in_blocks",
        "in_rollout",
        "keep",
        "live",
        "matrix16",
        "matrix8",
        "native",
        "packed",
        "parameter_table",
        "recurrent",
        "relu",
        "rings",
        "rounded",
        "silu",
        "squash",
        "subgroup_broadcast",
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::gpu::{Class, NEEDS, compose};

    /// Names in the `@if(...)` of a source. Conditions combine them with `!`, `&&`, `||` and parentheses.
    fn conditions(source: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (start, _) in source.match_indices("@if(") {
            let mut depth = 0;
            let end = source[start..].find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ')' && depth == 0
            });
            let inside = &source[start + 4..start + end.unwrap()];
            let words = inside.split(|c: char| !c.is_alphanumeric() && c != '_');
            found.extend(words.filter(|word| !word.is_empty()).map(str::to_string));
        }
        found
    }

    fn sources(folder: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "wgsl") {
                into.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn the_library_declares_the_conditions_that_shaders_use_and_no_others() {
        let mut all = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), &mut all);
        let used: BTreeSet<_> = all.iter().flat_map(|source| conditions(source)).collect();
        let declared: BTreeSet<_> = LIBRARY.conditions.iter().map(|name| (*name).to_string()).collect();
        assert_eq!(used, declared);
    }

    #[test]
    fn kernels_need_no_more_than_the_limits_asked_of_a_device() {
        // Of kernels that every device runs, of those that need a device with room for their blocks, and of those that are chosen by
        // the buffers that a device binds.
        let [mut everywhere, mut in_blocks, mut in_rollouts]: [BTreeMap<&str, u64>; 3] = Default::default();
        for class in [Class::Hardware, Class::Software] {
            let fixed = crate::kernels(class).into_iter().map(|(shader, variant)| {
                (shader.name.to_string(), compose(&shader, &variant).unwrap(), variant)
            });
            // Panels of all indicators at once are composed to be validated; groups of them are built within a device's limits.
            let mut composed = crate::indicators::sources(class).unwrap();
            composed.retain(|(name, _)| !name.starts_with("indicators/panel"));
            let environments = crate::env::sources(class).unwrap().into_iter();
            let composed = composed.into_iter().map(|(name, one)| (name, one.text, one.variant));
            let composed = composed.chain(environments.map(|(name, one)| (name, one.text, one.variant)));
            for (name, source, variant) in fixed.chain(composed) {
                let has_blocks = variant.constants.iter().any(|(name, _)| *name == "QUADS");
                let most = match has_blocks {
                    true if variant.flags.contains(&"in_rollout") => &mut in_rollouts,
                    true => &mut in_blocks,
                    false => &mut everywhere,
                };
                let module =
                    wgpu::naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{name}: {e}"));
                let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
                for (_, variable) in module.global_variables.iter() {
                    let bytes = u64::from(module.types[variable.ty].inner.size(module.to_ctx()));
                    let (limit, value) = match variable.space {
                        wgpu::naga::AddressSpace::Storage { .. } => {
                            ("max_storage_buffers_per_shader_stage", 1)
                        }
                        wgpu::naga::AddressSpace::Uniform => {
                            let largest = most.entry("max_uniform_buffer_binding_size").or_default();
                            *largest = bytes.max(*largest);
                            ("max_uniform_buffers_per_shader_stage", 1)
                        }
                        wgpu::naga::AddressSpace::Handle => ("max_sampled_textures_per_shader_stage", 1),
                        wgpu::naga::AddressSpace::WorkGroup => {
                            ("max_compute_workgroup_storage_size", bytes.next_multiple_of(16))
                        }
                        _ => continue,
                    };
                    *counts.entry(limit).or_default() += value;
                }
                let invocations = u64::from(module.entry_points[0].workgroup_size[0]);
                counts.insert("max_compute_invocations_per_workgroup", invocations);
                counts.insert("max_compute_workgroup_size_x", invocations);
                for (limit, value) in counts {
                    let largest = most.entry(limit).or_default();
                    *largest = value.max(*largest);
                }
            }
        }
        assert_eq!(in_blocks["max_storage_buffers_per_shader_stage"], u64::from(crate::nn::BLOCK_BUFFERS));
        for of in [&in_blocks, &in_rollouts] {
            assert_eq!(of["max_compute_workgroup_storage_size"], 20_480, "of the largest blocks");
        }
        // docs/environments.md names this number.
        assert_eq!(in_rollouts["max_storage_buffers_per_shader_stage"], 12);
        for limit in ["max_storage_buffers_per_shader_stage", "max_compute_workgroup_storage_size"] {
            in_blocks.remove(limit);
            in_rollouts.remove(limit);
        }
        in_rollouts.remove("max_uniform_buffers_per_shader_stage");
        for (limit, needed) in everywhere.into_iter().chain(in_blocks).chain(in_rollouts) {
            let asked = NEEDS.iter().find(|(name, ..)| *name == limit).map(|(_, need, _)| *need);
            assert!(asked.is_some_and(|asked| needed <= asked), "{limit}: {needed} needed, {asked:?} asked");
        }
    }
}
