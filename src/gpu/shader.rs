//! Composition of WGSL from the embedded sources, with WESL imports and conditions.

use std::borrow::Cow;

use wesl::syntax::PathOrigin;
use wesl::{CompileOptions, Feature, ModulePath, VirtualResolver, Wesl};

use super::variant::Variant;
use crate::{Error, Result};

/// One embedded shader source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shader {
    /// Path below `shaders/` without ending, for instance `ppo/gae`.
    pub name: &'static str,
    /// The source, WGSL with WESL imports and `@if`.
    pub source: &'static str,
}

/// Modules that kernels import as `package::lib::<name>`.
const LIBRARY: &[Shader] = &[
    Shader { name: "lib/numeric", source: include_str!("../../shaders/lib/numeric.wgsl") },
    Shader { name: "lib/random", source: include_str!("../../shaders/lib/random.wgsl") },
    Shader { name: "lib/network", source: include_str!("../../shaders/lib/network.wgsl") },
    Shader { name: "lib/quad", source: include_str!("../../shaders/lib/quad.wgsl") },
    Shader { name: "lib/activation", source: include_str!("../../shaders/lib/activation.wgsl") },
    Shader { name: "lib/squash", source: include_str!("../../shaders/lib/squash.wgsl") },
    Shader { name: "lib/product", source: include_str!("../../shaders/lib/product.wgsl") },
    Shader { name: "lib/branch", source: include_str!("../../shaders/lib/branch.wgsl") },
    Shader { name: "lib/observe", source: include_str!("../../shaders/lib/observe.wgsl") },
    Shader { name: "lib/episode", source: include_str!("../../shaders/lib/episode.wgsl") },
    Shader { name: "lib/cooperative", source: include_str!("../../shaders/lib/cooperative.wgsl") },
    Shader { name: "lib/bar", source: include_str!("../../shaders/lib/bar.wgsl") },
];

fn module_path(name: &str) -> ModulePath {
    ModulePath::new(PathOrigin::Absolute, name.split('/').map(str::to_string).collect())
}

/// Plain WGSL for `shader` under the decisions of `variant`.
///
/// # Errors
/// [`Error::Shader`] if an import or a condition does not resolve.
pub fn compose(shader: &Shader, variant: &Variant) -> Result<String> {
    compose_with(shader, &[], variant)
}

/// The same with further modules: paths without ending, and sources.
///
/// # Errors
/// [`Error::Shader`] if an import or a condition does not resolve.
pub fn compose_with(shader: &Shader, modules: &[(String, String)], variant: &Variant) -> Result<String> {
    let mut resolver = VirtualResolver::new();
    for (path, source) in modules {
        resolver.add_module(module_path(path), Cow::Borrowed(source.as_str()));
    }
    for module in LIBRARY {
        resolver.add_module(module_path(module.name), Cow::Borrowed(module.source));
    }
    resolver.add_module(module_path("constants"), Cow::Owned(variant.constants_module()));
    resolver.add_module(module_path(shader.name), Cow::Borrowed(shader.source));
    let mut compiler = Wesl::new_barebones().set_custom_resolver(resolver);
    compiler.set_options(CompileOptions {
        imports: true,
        condcomp: true,
        strip: true,
        lazy: true,
        validate: false,
        ..CompileOptions::default()
    });
    compiler.set_mangler(wesl::ManglerKind::Escape);
    compiler.set_missing_feature_behavior(Feature::Disable);
    for flag in &variant.flags {
        compiler.set_feature(flag, true);
    }
    let composed = compiler
        .compile(&module_path(shader.name))
        .map_err(|error| Error::Shader { shader: shader.name.into(), reason: error.to_string() })?;
    // Directives have to come first, and wesl has no conditions on them.
    // naga takes every function argument for one that differs between invocations; those that the matrices depend on are the
    // same for a subgroup.
    let cooperative = "enable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n";
    let directives = [("native", "enable f16;\n"), ("cooperative", cooperative)];
    let directives =
        directives.iter().filter(|(flag, _)| variant.flags.contains(flag)).map(|(_, text)| *text);
    Ok(format!("{}{composed}", directives.collect::<String>()))
}
