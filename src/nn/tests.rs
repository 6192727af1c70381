//! The kernels of the networks together, against the networks in f64.

use half::f16;

use super::reference::{Case, cases, noise};
use super::*;
use crate::gpu::{Access, Command, Gpu, Kernel, Recorder};

/// What this adapter can run of the forms that reach every line, and the forms for GPUs.
fn forms(precision: Precision) -> Vec<KernelConfig> {
    let gpu = crate::testing::gpu();
    let features = gpu.device().features();
    let subgroup_broadcast = KernelConfig::can_subgroup_broadcast(&gpu);
    let mut all = representative(Class::Software);
    // Of another size of workgroups; how numbers are stored makes no difference to that.
    if precision == Precision::F32 {
        all.push(KernelConfig::plain(Class::Hardware, Storage::F32));
    }
    all.retain(|d| d.cooperative.is_none());
    if precision == Precision::F16 {
        let matrices = Cooperative::listed(&gpu);
        if matrices.is_empty() {
            println!("skipped, the adapter has none: cooperative matrices");
        }
        // Subgroups smaller than planned for do the same work together: so the forms of wider ones run here, too.
        let most = gpu.device().limits().max_compute_invocations_per_workgroup;
        let wider = |matrices: Cooperative| {
            let wider = [32, 64]
                .map(|subgroup| Cooperative { subgroup: subgroup.max(matrices.subgroup), ..matrices });
            std::iter::once(matrices)
                .chain(wider.into_iter().filter(move |wide| wide.weight_workgroup() <= most))
        };
        let forms = matrices.into_iter().flat_map(wider);
        all.extend(forms.map(|matrices| KernelConfig::cooperative(gpu.class(), matrices)));
    }
    // Long loops take long to compile: `layers_of_1024_are_whole` is about them.
    all.retain(|d| d.storage.precision() == precision && !d.unrolled);
    let (runs, skipped): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| {
        (!d.subgroup_broadcast || subgroup_broadcast)
            && (d.storage != Storage::F16 || features.contains(wgpu::Features::SHADER_F16))
    });
    skipped.iter().for_each(|d| println!("skipped, the adapter cannot: {d:?}"));
    runs
}

/// Networks of one per agent, whose rows do not fill a subgroup or a block, are not for the forms that share weights in it.
fn suits(case: &Case, kernel_config: &KernelConfig) -> bool {
    // Compiling takes longest: what has nothing to do with each other is not tried in every combination.
    let plain = !kernel_config.subgroup_broadcast && kernel_config.cooperative.is_none();
    let wanted = match (kernel_config.storage.precision(), case.shape.activation) {
        (Precision::F16, activation) if plain => activation == Activation::Tanh,
        (_, activation) if plain && kernel_config.workgroup > 8 => {
            matches!(activation, Activation::Tanh | Activation::Gelu)
        }
        _ => true,
    };
    wanted && kernel_config.suits(&case.layout(), case.quads as u32)
}

#[test]
fn heads_and_every_gradient_agree_with_f64() {
    let forms = forms(Precision::F32);
    for (number, case) in cases().iter().enumerate() {
        let (logits, values) = case.heads(&case.params);
        let differences = case.differences();
        for kernel_config in forms.iter().filter(|d| suits(case, d)) {
            let what = |name: &str| format!("case {number}, {kernel_config:?}: {name}");
            let run = case.run(kernel_config, 1.0);
            Case::compare(&what("logits"), &run.logits, &logits, 2e-5);
            Case::compare(&what("values"), &run.values, &values, 2e-5);
            // Central differences of a loss that weighs the heads unevenly: through both heads, every LayerNorm, every
            // activation and the biases of each agent.
            case.compare_gradients(&what("gradient"), &run, &differences, 2e-4);
        }
    }
}

#[test]
fn f16_is_as_good_as_its_rounding() {
    for (number, case) in cases().iter().enumerate().step_by(2) {
        let (logits, values) = case.heads(&case.params);
        let differences = case.differences();
        for kernel_config in forms(Precision::F16).iter().filter(|d| suits(case, d)) {
            let what = |name: &str| format!("case {number}, {kernel_config:?}: {name}");
            let run = case.run(kernel_config, 256.0);
            Case::compare(&what("logits"), &run.logits, &logits, 1e-2);
            Case::compare(&what("values"), &run.values, &values, 1e-2);
            case.compare_gradients(&what("gradient"), &run, &differences, 2e-2);
        }
    }
}

/// What the trainer does when it acts, a slot at a time, and when it values, a chunk at a time.
#[test]
fn a_gru_goes_on_from_what_it_kept() {
    for precision in [Precision::F32, Precision::F16] {
        let tolerance = if precision == Precision::F32 { 2e-5 } else { 1e-2 };
        for case in cases().iter().filter(|case| case.shape.recurrent()) {
            let [logits, values] = case.whole();
            for kernel_config in forms(precision).iter().filter(|d| suits(case, d)) {
                for length in [1, 2, 3] {
                    let run = case.walk(kernel_config, length);
                    let what = |name: &str| format!("{kernel_config:?}, {length} slots at a time: {name}");
                    Case::compare(&what("logits"), &run.logits, &logits, tolerance);
                    Case::compare(&what("values"), &run.values, &values, tolerance);
                }
            }
        }
    }
}

#[test]
fn native_and_packed_passes_agree() {
    let forms = forms(Precision::F16);
    let find = |storage| {
        forms.iter().find(|d| {
            d.storage == storage && !d.subgroup_broadcast && d.cooperative.is_none() && d.workgroup == 8
        })
    };
    let (Some(native), Some(packed)) = (find(Storage::F16), find(Storage::Packed)) else {
        crate::testing::skip("the adapter has no native f16");
        return;
    };
    // A GRU hands such bits on to all that comes later: it is held against f64 alone.
    for mut case in cases().into_iter().step_by(2).filter(|case| !case.shape.recurrent()) {
        // Beyond the largest f16 and below its smallest normal number.
        case.observations[0] = 1e6;
        case.observations[5] = -70_000.0;
        case.observations[6] = 3e-7;
        for scale in [1.0, 1e-6, 3e5] {
            let (a, b) = (case.run(native, scale), case.run(packed, scale));
            let halves = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u16>(bytes);
            for (a, b) in [(&a.acts, &b.acts), (&a.grads, &b.grads)] {
                let (a, b) = (halves(a), halves(b));
                // Two NaN are the same whatever their sign.
                let nan = |bits: u16| f16::from_bits(bits).is_nan();
                let differ = |(a, b): &(&u16, &u16)| a != b && !(nan(**a) && nan(**b));
                let apart: Vec<_> = a.iter().zip(&b).filter(differ).collect();
                // Drivers may contract the two shaders' sums in other places, or leave out the native rounding of a number
                // that goes on into a mean at once: the last bit of some.
                println!("scale {scale}: {} of {} stored numbers differ", apart.len(), a.len());
                assert!(apart.len() * 4 <= a.len(), "scale {scale}: {} of {} differ", apart.len(), a.len());
                for (a, b) in apart {
                    let [a, b] = [a, b].map(|bits| f16::from_bits(*bits).to_f32());
                    assert!((a - b).abs() <= 0.01 * a.abs().max(0.1), "scale {scale}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn an_overflow_in_f16_stays_visible() {
    let case = cases().remove(0);
    for kernel_config in forms(Precision::F16) {
        let run = case.run(&kernel_config, 1e6);
        assert!(run.gradient.iter().any(|g| !g.is_finite()), "{kernel_config:?}");
    }
}

/// The rounding of storage itself, the same in either form.
#[test]
fn conversion_rounds_to_nearest_even_and_keeps_infinity_and_nan() {
    let gpu = crate::testing::gpu();
    convert(&gpu, Storage::Packed);
    if gpu.device().features().contains(wgpu::Features::SHADER_F16) {
        convert(&gpu, Storage::F16);
    } else {
        crate::testing::skip("the adapter has no native f16");
    }
}

fn convert(gpu: &Gpu, storage: Storage) {
    let source = "import package::constants::WG;\nimport package::lib::quad::{Quad, to_quad, of_quad};\n\
        @group(0) @binding(0) var<storage, read_write> data: array<vec4<f32>>;\n\
        @group(0) @binding(1) var<storage, read_write> quads: array<Quad>;\n\
        @compute @workgroup_size(WG) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n\
        STATEMENT }";
    // In two dispatches: some compilers leave out the rounding of a number that they still have.
    let kernels =
        ["quads[id.x] = to_quad(data[id.x]);", "data[id.x] = of_quad(quads[id.x]);"].map(|statement| {
            let source: &'static str = source.replace("STATEMENT", statement).leak();
            let variant = storage.apply(crate::gpu::Variant::new(8));
            let shader = Shader { name: "conversion", source, library: &crate::shaders::LIBRARY };
            Kernel::trusted(gpu, &shader, variant, &[Access::Write, Access::Write], 0).unwrap()
        });
    let mut next = noise(9);
    // Every exponent and sign with the mantissas around every tie, and random ones.
    let mut values = Vec::new();
    for top in 0..512u32 {
        for low in [
            0u32, 1, 0x0fff, 0x1000, 0x1001, 0x1fff, 0x2fff, 0x3000, 0x3001, 0x7f_e000, 0x7f_efff, 0x7f_f000,
            0x7f_ffff,
        ] {
            values.push(f32::from_bits((top << 23) | low));
        }
        values.push(f32::from_bits((top << 23) | ((next() + 1.0) * 4e6) as u32));
    }
    values.resize(values.len().next_multiple_of(32), 0.0);
    let data = gpu.upload("data", &values).unwrap();
    let words = gpu.upload("words", &vec![0u32; values.len() / 2]).unwrap();
    let groups = [(values.len() / 32) as u32, 1, 1];
    for kernel in &kernels {
        let group = kernel.bind(gpu, &[&data, &words]).unwrap();
        Recorder::new(gpu).run(&[Command::dispatch(kernel, &group, groups)]).unwrap();
    }
    let halves: Vec<u16> = gpu.read(&words).unwrap();
    let back: Vec<f32> = gpu.read(&data).unwrap();
    for ((value, half), back) in values.iter().zip(halves).zip(back) {
        let (got, expected) = (f16::from_bits(half), f16::from_f32(*value));
        let denormal = value.abs() < f32::MIN_POSITIVE;
        let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
        assert!(same || (denormal && got == expected), "{storage:?}, {value:e}: {got:e} for {expected:e}");
        assert!(back == expected.to_f32() || back.is_nan() && expected.is_nan(), "{value:e}: {back:e}");
    }
}

#[test]
fn large_and_tiny_observations_stay_finite_and_right() {
    for kernel_config in &forms(Precision::F32) {
        for scale in [1e-6f32, 1e6] {
            let mut case = cases().remove(0);
            case.observations.iter_mut().for_each(|x| *x *= scale);
            let run = case.run(kernel_config, 1.0);
            let (logits, values) = case.heads(&case.params);
            Case::compare("logits", &run.logits, &logits, 1e-4);
            Case::compare("values", &run.values, &values, 1e-4);
        }
    }
}

/// Inputs that differ by little from a large number: the mean goes first, in the forward pass as in the backward pass.
#[test]
fn observations_far_from_zero_are_normalised() {
    for kernel_config in &forms(Precision::F32) {
        let mut case = cases().remove(0);
        case.observations.iter_mut().for_each(|x| *x = (*x * 64.0).round() / 64.0 + 256.0);
        let run = case.run(kernel_config, 1.0);
        let (logits, values) = case.heads(&case.params);
        Case::compare("logits", &run.logits, &logits, 1e-4);
        Case::compare("values", &run.values, &values, 1e-4);
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    for kernel_config in &[forms(Precision::F32), forms(Precision::F16)].concat() {
        let mut case = cases().remove(0);
        let clean = case.run(kernel_config, 1.0);
        // Feature 0 of agent 0 in environment 1 of slot 0.
        case.observations[1] = f32::NAN;
        let run = case.run(kernel_config, 1.0);
        let envs = case.quads * 4;
        for (row, (before, after)) in clean.logits[0].iter().zip(&run.logits[0]).enumerate() {
            let poisoned = row % envs == 1 && row < envs;
            assert_eq!(after.is_nan(), poisoned, "row {row}");
            assert!(poisoned || before == after, "row {row} changed");
        }
    }
}

#[test]
fn padding_gets_no_gradient() {
    for case in cases() {
        for kernel_config in forms(Precision::F32).iter().filter(|d| suits(&case, d)) {
            let run = case.run(kernel_config, 1.0);
            let mut exists = vec![false; run.gradient.len()];
            for tensor in &case.layout().tensors {
                for row in 0..tensor.shape[0] {
                    let start = tensor.first + row * tensor.stride;
                    exists[start..start + tensor.shape[1]].fill(true);
                }
            }
            let stray = run.gradient.iter().zip(&exists).find(|(g, exists)| !**exists && **g != 0.0);
            assert_eq!(stray, None);
        }
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    for precision in [Precision::F32, Precision::F16] {
        let case = cases().remove(2);
        for kernel_config in forms(precision).iter().filter(|d| suits(&case, d)) {
            let bits = |g: &[f32]| g.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(&case.run(kernel_config, 1.0).gradient),
                bits(&case.run(kernel_config, 1.0).gradient)
            );
        }
    }
}

/// More tiles than a device takes workgroups in one direction (65,535).
#[test]
fn tiles_beyond_a_row_of_workgroups_are_reached() {
    let gpu = crate::testing::gpu();
    let kernel_config = KernelConfig::plain(gpu.class(), Storage::F32);
    let count = crate::gpu::GROUPS_IN_A_ROW + 9;
    // Each sums the gradients of the one quad there is into a bias of its own.
    let tile = |bias| weight_gradient::Tile {
        kind: 2,
        outputs: 4,
        agents: 1,
        moments: u32::MAX,
        bias,
        ..Default::default()
    };
    let tiles: Vec<_> = (0..count).map(tile).collect();
    let batch = Batch {
        rows: 1,
        stride: kernel_config.block(),
        agents: 1,
        quads: 1,
        obs_dim: 1,
        acts: 1,
        grads: 4,
        ..Default::default()
    };
    let split = weight_gradient::Split { count: 1, stride: count, tiles: count, pad: 0 };
    let room = kernel_config.block() as usize * 4;
    let grads: Vec<f32> = (0..4 * room).map(|i| (i / room + 1) as f32).collect();
    let partials = &gpu.upload("partials", &vec![0f32; count as usize * 4]).unwrap();
    let unused = &gpu.upload("unused", &vec![0f32; room]).unwrap();
    let buffers = weight_gradient::Buffers {
        batches: &gpu.uniform_table("batches", &[batch]).unwrap(),
        split: &gpu.uniform("split", &split).unwrap(),
        tiles: &gpu.upload("tiles", &tiles).unwrap(),
        observations: unused,
        acts: unused,
        moments: unused,
        grads: &gpu.upload("grads", &grads).unwrap(),
        partials,
    };
    let kernel = weight_gradient::kernel(&gpu, &kernel_config).unwrap();
    let group = weight_gradient::bind(&gpu, &kernel, buffers).unwrap();
    let grid = weight_gradient::groups(count, 1);
    Recorder::new(&gpu).run(&[Command::dispatch_at(&kernel, &group, 0, 0, grid)]).unwrap();
    let sums: Vec<f32> = gpu.read(partials).unwrap();
    assert!(sums.chunks_exact(4).all(|sum| *sum == [4.0, 8.0, 12.0, 16.0]));
}

/// The widest layers that may be set, at a few places of every tensor: loops that a software adapter would cut short.
#[test]
fn layers_of_1024_are_whole() {
    let shape =
        Shape { agents: 2, obs_dim: 3, actions: 2, hidden: vec![1024, 1024, 1021], ..Shape::default() };
    let case = Case::new(shape, 1, 1, 8);
    let layout = case.layout();
    let gpu = crate::testing::gpu();
    let (logits, values) = case.heads(&case.params);
    let kernel_config = KernelConfig::new(&gpu, Precision::F32, &layout, 1).unwrap();
    assert_eq!(
        kernel_config.unrolled || kernel_config.subgroup_broadcast,
        gpu.class() == Class::Software,
        "{kernel_config:?}"
    );
    let run = case.run(&kernel_config, 1.0);
    Case::compare("logits", &run.logits, &logits, 5e-5);
    Case::compare("values", &run.values, &values, 5e-5);
    for tensor in &layout.tensors {
        let [rows, columns] = tensor.shape;
        for (row, column) in [(0, columns - 1), (rows - 1, columns / 3)] {
            let at = tensor.first + row * tensor.stride + column;
            let expected = case.difference(at);
            let error = (f64::from(run.gradient[at]) - expected).abs() / expected.abs().max(0.1);
            assert!(error < 5e-3, "{}[{row}][{column}]: {} for {expected}", tensor.name, run.gradient[at]);
        }
    }
}
