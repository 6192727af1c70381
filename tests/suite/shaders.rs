//! Composes, validates and translates every kernel variant to every shading language that wgpu passes to drivers.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use phalanx::gpu::{Class, Constant, Variant, compose};
use phalanx::indicators::{NAMES, sources};

#[test]
fn every_variant_composes_validates_and_translates() {
    let mut shipped = BTreeSet::new();
    let dump = Dump::from_environment();
    for class in [Class::Hardware, Class::Software] {
        let fixed = phalanx::kernels(class).into_iter().map(|(shader, variant)| {
            let name = format!("{} {variant:?}", shader.name);
            let source = compose(&shader, &variant).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, source, variant)
        });
        let environments = phalanx::env::sources(class).unwrap().into_iter();
        let environments = environments.map(|(name, one)| (name, one.text, one.variant));
        let composed = sources(class).unwrap().into_iter().map(|(name, one)| (name, one.text, one.variant));
        let composed = composed.chain(environments);
        for (name, source, variant) in fixed.chain(composed) {
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
            // Only the core language (with pack2x16float), so that the same source runs in browsers; except for 64-bit stores,
            // which only software adapters with that feature use.
            let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
            capabilities.set(Capabilities::SHADER_FLOAT16, source.contains("enable f16;"));
            capabilities.set(Capabilities::SUBGROUP, source.contains("subgroup"));
            capabilities.set(Capabilities::SHADER_INT64, source.contains("u64"));
            let cooperative = source.contains("enable wgpu_cooperative_matrix;");
            capabilities.set(Capabilities::COOPERATIVE_MATRIX, cooperative);
            let info = Validator::new(ValidationFlags::all(), capabilities)
                .validate(&module)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
            assert_eq!(module.entry_points.len(), 1, "{name}");
            assert_eq!(module.entry_points[0].name, "main", "{name}");
            assert_eq!(module.entry_points[0].workgroup_size, [variant.workgroup, 1, 1], "{name}");

            let words = spv::write_vec(&module, &info, &spv::Options::default(), None);
            assert!(words.unwrap_or_else(|error| panic!("{name}: SPIR-V: {error}")).len() > 100);
            let lang_version = (2, 3);
            let options = msl::Options { fake_missing_bindings: true, lang_version, ..Default::default() };
            let metal = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
            let (metal, _) = metal.unwrap_or_else(|error| panic!("{name}: MSL: {error}"));
            assert!(metal.contains("kernel void"), "{name}");
            shipped.insert(describe(&name, class, &variant));
            dump.write(&name, class, &source, &module, &info);
            if cooperative {
                // Direct3D has no cooperative matrices, and naga cannot translate them.
                continue;
            }
            let mut text = String::new();
            let shader_model = hlsl::ShaderModel::V6_0;
            let options = hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
            hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
                .write(&module, &info, None)
                .unwrap_or_else(|error| panic!("{name}: HLSL: {error}"));
            assert!(text.contains("numthreads"), "{name}");
        }
    }
    let listed: BTreeSet<String> = include_str!("../kernels.txt").lines().map(str::to_string).collect();
    if std::env::var_os("PHALANX_BLESS").is_some() {
        let text: String = shipped.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels.txt"), text).unwrap();
    } else if shipped != listed {
        let new: Vec<_> = shipped.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&shipped).collect();
        panic!(
            "tests/kernels.txt is out of date (PHALANX_BLESS=1 rewrites it): new {new:#?}, gone {gone:#?}"
        );
    }
}

/// A line of tests/kernels.txt: kernel, class, workgroup, constants and conditions.
fn describe(name: &str, class: Class, variant: &Variant) -> String {
    let kernel = name.split(" Variant").next().unwrap_or(name);
    let constants: Vec<_> =
        variant.constants.iter().map(|(name, Constant::U32(value))| format!("{name}={value}")).collect();
    let parts =
        [format!("{kernel}, {class:?}, {}", variant.workgroup), constants.join(" "), variant.flags.join(" ")];
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Writes all kernels to the folder `PHALANX_DUMP`, for the compilers of `make portability`.
struct Dump(Option<PathBuf>);

impl Dump {
    fn from_environment() -> Self {
        let folder = std::env::var_os("PHALANX_DUMP").map(PathBuf::from);
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).unwrap();
        }
        Self(folder)
    }

    /// Writes the WGSL and, if shader model 5.1 suffices, the HLSL that wgpu passes to FXC.
    fn write(&self, name: &str, class: Class, source: &str, module: &naga::Module, info: &ModuleInfo) {
        let Some(folder) = &self.0 else {
            return;
        };
        let kernel = name.split(" Variant").next().unwrap_or(name).replace(['/', ' '], "_");
        let mut hasher = std::hash::DefaultHasher::new();
        source.hash(&mut hasher);
        let stem = format!("{kernel}-{class:?}-{:016x}", hasher.finish());
        std::fs::write(folder.join(format!("{stem}.wgsl")), source).unwrap();
        if ["enable f16;", "subgroup", "u64", "wgpu_cooperative_matrix"]
            .iter()
            .any(|word| source.contains(word))
        {
            return;
        }
        let mut text = String::new();
        let shader_model = hlsl::ShaderModel::V5_1;
        let options = hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
        hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
            .write(module, info, None)
            .unwrap_or_else(|error| panic!("{name}: HLSL 5.1: {error}"));
        std::fs::write(folder.join(format!("{stem}.hlsl")), text).unwrap();
    }
}

#[test]
fn every_shader_file_belongs_to_a_kernel() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let names: BTreeSet<_> = [Class::Hardware, Class::Software]
        .into_iter()
        .flat_map(phalanx::kernels)
        .map(|(shader, _)| shader.name.to_string())
        .chain(phalanx::env::sources(Class::Hardware).unwrap().into_iter().map(|(name, _)| name))
        // The parts of the environments' kernels that they share.
        .chain(["env/functions", "env/step", "env/rollout"].map(str::to_string))
        .collect();
    for family in std::fs::read_dir(root.join("shaders")).unwrap() {
        let family = family.unwrap().file_name().into_string().unwrap();
        if family == "lib" {
            continue;
        }
        for name in shaders_below(&root.join("shaders"), &family) {
            let (_, file) = name.rsplit_once('/').unwrap();
            let in_panels = family == "indicators" && (file == "panel" || NAMES.contains(&file));
            let listed = in_panels || names.contains(name.as_str());
            assert!(listed, "{name} is not listed in phalanx::kernels");
            assert!(root.join(format!("src/{name}.rs")).exists(), "src/{name}.rs is missing");
        }
    }
}

/// Names of the shaders in a folder and in those below it.
fn shaders_below(shaders: &Path, folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(shaders.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            names.extend(shaders_below(shaders, &name));
        } else {
            names.push(name.trim_end_matches(".wgsl").to_string());
        }
    }
    names
}
