//! Composition of WGSL from the embedded sources, with WESL imports and conditions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use wesl::syntax::PathOrigin;
use wesl::{CompileOptions, Feature, ModulePath, VirtualResolver, Wesl};

use super::variant::Variant;
use crate::{Error, Result};

/// Modules that shaders import, and the conditions that modules and shaders may use.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Library {
    /// Paths below `shaders/` without ending, and sources: `lib/random` is imported as `package::lib::random`.
    pub modules: &'static [(&'static str, &'static str)],
    /// The conditions that `@if(...)` may name. Any other condition is an error.
    pub conditions: &'static [&'static str],
}

/// A library without modules and conditions.
static EMPTY: Library = Library { modules: &[], conditions: &[] };

/// One embedded shader source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shader {
    /// Path below `shaders/` without ending, for instance `ppo/gae`.
    pub name: &'static str,
    /// The source, WGSL with WESL imports and `@if`.
    pub source: &'static str,
    /// The modules that it may import and the conditions that it may use.
    pub library: &'static Library,
}

impl Shader {
    /// A shader that imports nothing but `package::constants`.
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, library: &EMPTY }
    }
}

fn module_path(name: &str) -> ModulePath {
    ModulePath::new(PathOrigin::Absolute, name.split('/').map(str::to_string).collect())
}

/// Composes `shader` to plain WGSL with the constants and conditions of `variant`.
///
/// # Errors
/// [`Error::Shader`], which names an import or a condition that does not resolve.
pub fn compose(shader: &Shader, variant: &Variant) -> Result<String> {
    compose_with(shader, &[], variant)
}

/// As [`compose`], with every declaration of the shader, used or not, for text that is joined with further text. The shader may use
/// names that only the joined text declares.
///
/// # Errors
/// As [`compose`].
pub(crate) fn compose_all(shader: &Shader, variant: &Variant) -> Result<String> {
    composed(shader, &[], variant, true)
}

/// Everything that a composition depends on: the shader's source and library, further modules, the variant, and whether unused
/// declarations of the shader stay.
type Request = (&'static str, &'static Library, Vec<(String, String)>, Variant, bool);

/// As [`compose`], with further modules that the shader may import: paths without ending, and sources.
///
/// # Errors
/// [`Error::Shader`], which names an import or a condition that does not resolve.
pub fn compose_with(shader: &Shader, modules: &[(String, String)], variant: &Variant) -> Result<String> {
    composed(shader, modules, variant, false)
}

fn composed(
    shader: &Shader,
    modules: &[(String, String)],
    variant: &Variant,
    keep_root: bool,
) -> Result<String> {
    // Composing takes as long as translating WGSL, so compositions are kept for the life of the process.
    static COMPOSED: OnceLock<Mutex<HashMap<Request, String>>> = OnceLock::new();
    let composed = COMPOSED.get_or_init(Mutex::default);
    let request = (shader.source, shader.library, modules.to_vec(), variant.clone(), keep_root);
    if let Some(text) = composed.lock().unwrap_or_else(PoisonError::into_inner).get(&request) {
        return Ok(text.clone());
    }
    let text = compose_anew(shader, modules, variant, keep_root)?;
    composed.lock().unwrap_or_else(PoisonError::into_inner).insert(request, text.clone());
    Ok(text)
}

fn compose_anew(
    shader: &Shader,
    modules: &[(String, String)],
    variant: &Variant,
    keep_root: bool,
) -> Result<String> {
    let failed = |reason: String| Error::Shader { shader: shader.name.into(), reason };
    let mut resolver = VirtualResolver::new();
    for (path, source) in modules {
        resolver.add_module(module_path(path), Cow::Borrowed(source.as_str()));
    }
    for (path, source) in shader.library.modules {
        resolver.add_module(module_path(path), Cow::Borrowed(*source));
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
        keep_root,
        ..CompileOptions::default()
    });
    compiler.set_mangler(wesl::ManglerKind::Escape);
    // A condition that the library does not declare is misspelt.
    compiler.set_missing_feature_behavior(Feature::Error);
    for condition in shader.library.conditions {
        compiler.set_feature(condition, variant.flags.contains(condition));
    }
    if let Some(unknown) = variant.flags.iter().find(|flag| !shader.library.conditions.contains(flag)) {
        return Err(failed(format!(
            "the variant sets the condition `{unknown}`, which the shader's library does not declare"
        )));
    }
    let composed = compiler.compile(&module_path(shader.name)).map_err(|error| failed(error.to_string()))?;
    // Directives have to come first, and wesl cannot make them conditional.
    // naga's uniformity analysis treats every function argument as non-uniform; the arguments that the cooperative matrices
    // depend on are uniform in a subgroup.
    let cooperative = "enable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n";
    let directives = [("native", "enable f16;\n"), ("cooperative", cooperative)];
    let directives =
        directives.iter().filter(|(flag, _)| variant.flags.contains(flag)).map(|(_, text)| *text);
    Ok(format!("{}{composed}", directives.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIBRARY: Library = Library {
        modules: &[("lib/one", "@if(wide) const SIZE: u32 = 2u;\n@if(!wide) const SIZE: u32 = 1u;")],
        conditions: &["wide"],
    };

    fn compose_source(source: &'static str, variant: &Variant) -> Result<String> {
        compose(&Shader { name: "test/shader", source, library: &LIBRARY }, variant)
    }

    #[test]
    fn conditions_choose_and_misspelt_names_are_named() {
        let source = "import package::lib::one::SIZE;\nconst MINE = SIZE;\n@compute @workgroup_size(1) fn main() { var x = MINE; }";
        let text = compose_source(source, &Variant::new(1).when("wide", true)).unwrap();
        assert!(text.contains("2u") && !text.contains("1u"), "{text}");
        for (source, variant, wanted) in [
            ("@if(wyde) const A = 1;", Variant::new(1), "wyde"),
            (
                "import package::lib::two::SIZE;\nconst A = SIZE;\n@compute @workgroup_size(1) fn main() { var x = A; }",
                Variant::new(1),
                "two",
            ),
            (
                "import package::constants::TYLE;\nconst A = TYLE;\n@compute @workgroup_size(1) fn main() { var x = A; }",
                Variant::new(1).with("TILE", 4),
                "TYLE",
            ),
            ("const A = 1;", Variant::new(1).when("wyde", true), "wyde"),
        ] {
            let error = compose_source(source, &variant).unwrap_err().to_string();
            assert!(error.contains("test/shader") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn one_source_with_two_libraries_is_two_shaders() {
        static OTHER: Library = Library { modules: &[("lib/one", "const SIZE: u32 = 7u;")], conditions: &[] };
        let source =
            "import package::lib::one::SIZE;\n@compute @workgroup_size(1) fn main() { var x = SIZE; }";
        let first = compose_source(source, &Variant::new(1)).unwrap();
        let other = Shader { name: "test/shader", source, library: &OTHER };
        assert_ne!(first, compose(&other, &Variant::new(1)).unwrap());
    }
}
