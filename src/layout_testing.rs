//! Structures that Rust and WGSL share have the same layout on both sides, by naga's reflection.

use crate::gpu::Class;

/// Tests that `#[repr(C)]` structures have the layout of their WGSL counterparts:
/// `gae::Gae { steps, agents } = "Gae" in "ppo/gae";`, structure and fields, name in WGSL, kernel.
macro_rules! same_layout {
    ($($module:ident::$type:ident { $($field:ident),+ $(,)? } = $wgsl:literal in $kernel:literal;)+) => {
        #[test]
        fn structures_have_the_layout_of_their_counterparts_in_wgsl() {
            $({
                use super::$module::$type as Structure;
                // Does not compile if a field of the structure is missing in the list.
                let Structure { $($field: _),+ } = <Structure as bytemuck::Zeroable>::zeroed();
                let fields = [$((stringify!($field), std::mem::offset_of!(Structure, $field))),+];
                crate::layout_testing::compare_layout($kernel, $wgsl, size_of::<Structure>(), &fields);
            })+
        }
    };
}
pub(crate) use same_layout;

/// Compares names, offsets and size with those of structure `wgsl` of a kernel. Fields whose names begin with `pad` are padding.
pub fn compare_layout(kernel: &str, wgsl: &str, size: usize, fields: &[(&str, usize)]) {
    let panels = crate::indicators::sources(Class::Hardware).unwrap();
    let source = if let Some((_, panel)) =
        panels.into_iter().find(|(name, _)| name == kernel || kernel == "indicators/panel")
    {
        panel.text
    } else if let Some((_, one)) =
        crate::env::sources(Class::Hardware).unwrap().into_iter().find(|(name, _)| name == kernel)
    {
        one.text
    } else {
        let kernels = crate::kernels(Class::Hardware);
        let (shader, variant) = kernels.iter().find(|(shader, _)| shader.name == kernel).expect(kernel);
        crate::gpu::compose(shader, variant).unwrap()
    };
    let module =
        wgpu::naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| panic!("{kernel}: {error}"));
    // Structures of imported modules have the module's path before their name.
    let imported = format!("_{wgsl}");
    let named = |name: &str| name == wgsl || name.ends_with(&imported);
    let (_, structure) = module
        .types
        .iter()
        .find(|(_, it)| it.name.as_deref().is_some_and(named))
        .unwrap_or_else(|| panic!("{kernel} has no structure {wgsl}"));
    let wgpu::naga::TypeInner::Struct { members, span } = &structure.inner else {
        panic!("{wgsl} of {kernel} is no structure");
    };
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize))
        .filter(|(name, _)| !name.starts_with("pad"))
        .collect();
    let expected: Vec<_> = fields.iter().copied().filter(|(name, _)| !name.starts_with("pad")).collect();
    assert_eq!(found, expected, "{wgsl} of {kernel}: fields and offsets in WGSL, in Rust");
    assert_eq!(*span as usize, size, "{wgsl} of {kernel}: size in WGSL, in Rust");
}

/// Every `#[repr(C)]` structure below `src/` is compared in the `layout_tests.rs` of its family.
#[test]
fn every_device_structure_is_compared() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut count = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for after in source.split("\n#[repr(C)]\n").skip(1) {
            let line = after.lines().find(|line| line.contains("struct ")).expect("a structure");
            let name = line.split("struct ").nth(1).unwrap().split([' ', '<', '(']).next().unwrap();
            let family = path.strip_prefix(&root).unwrap().iter().next().unwrap();
            let tests = root.join(family).join("layout_tests.rs");
            let tests = std::fs::read_to_string(&tests).unwrap_or_default();
            // The structure's module is the file, or the folder above it.
            let module = path.with_extension("");
            let compared = module
                .components()
                .any(|part| tests.contains(&format!("{}::{name} {{", part.as_os_str().display())));
            assert!(compared, "{name} of {} is not compared in {family:?}", path.display());
            count += 1;
        }
    }
    assert!(count > 0, "no structures found below {}", root.display());
}
