//! Tests of all kernels of the networks together against the reference in f64.

use std::sync::OnceLock;

use half::f16;

use super::reference::{Case, cases, noise};
use super::testing::{Setup, setups};
use super::*;
use crate::gpu::{Access, Command, Gpu, Kernel, Recorder};

/// Central differences of the cases, computed once for all tests.
fn differences(number: usize) -> &'static [Vec<f64>] {
    static KNOWN: [OnceLock<Vec<Vec<f64>>>; 13] = [const { OnceLock::new() }; 13];
    KNOWN[number].get_or_init(|| cases()[number].differences())
}

/// Whether a case runs in a configuration: one network per agent needs rows that fill the subgroups or blocks that share
/// weights. Compiling takes most of the time, so independent properties are not tested in every combination.
fn suits(case: &Case, setup: &Setup) -> bool {
    let kernel_config = &setup.kernel_config;
    let plain = !kernel_config.subgroup_broadcast && kernel_config.cooperative.is_none();
    // An activation is one function of the kernels; a layer that is wider than a tile and the GRU come with Gelu.
    let wanted = match (kernel_config.storage.precision(), case.shape.activation) {
        (Precision::F16, activation) if plain => activation == Activation::Tanh,
        (_, activation) => {
            !plain && kernel_config.storage.precision() == Precision::F32
                || matches!(activation, Activation::Tanh | Activation::Gelu)
        }
    };
    wanted && kernel_config.suits(&case.layout(), case.quads as u32)
}

#[test]
fn heads_and_every_gradient_agree_with_f64() {
    let setups = setups(Precision::F32);
    for (number, case) in cases().iter().enumerate() {
        let (logits, values) = case.heads(&case.params);
        let differences = differences(number);
        for setup in setups.iter().filter(|setup| suits(case, setup)) {
            let what = |name: &str| format!("case {number}, {setup:?}: {name}");
            let run = case.run(setup, 1.0);
            Case::compare(&what("logits"), &run.logits, &logits, 2e-5);
            Case::compare(&what("values"), &run.values, &values, 2e-5);
            // Central differences of a loss that weighs the heads unevenly: through both heads, every LayerNorm, every
            // activation and the biases of each agent.
            case.compare_gradients(&what("gradient"), &run, differences, 2e-4);
        }
    }
}

#[test]
fn f16_is_as_good_as_its_rounding() {
    for (number, case) in cases().iter().enumerate().step_by(2) {
        let (logits, values) = case.heads(&case.params);
        let differences = differences(number);
        for setup in setups(Precision::F16).iter().filter(|setup| suits(case, setup)) {
            let what = |name: &str| format!("case {number}, {setup:?}: {name}");
            let run = case.run(setup, 256.0);
            Case::compare(&what("logits"), &run.logits, &logits, 1e-2);
            Case::compare(&what("values"), &run.values, &values, 1e-2);
            case.compare_gradients(&what("gradient"), &run, differences, 2e-2);
        }
    }
}

/// The trainer acts one slot at a time and computes values one chunk at a time.
#[test]
fn a_gru_continues_from_its_stored_states() {
    for precision in [Precision::F32, Precision::F16] {
        let tolerance = if precision == Precision::F32 { 2e-5 } else { 1e-2 };
        for case in cases().iter().filter(|case| case.shape.recurrent()) {
            let [logits, values] = case.whole();
            for setup in setups(precision).iter().filter(|setup| suits(case, setup)) {
                for length in [1, 2, 3] {
                    let run = case.walk(setup, length);
                    let what = |name: &str| format!("{setup:?}, {length} slots at a time: {name}");
                    Case::compare(&what("logits"), &run.logits, &logits, tolerance);
                    Case::compare(&what("values"), &run.values, &values, tolerance);
                }
            }
        }
    }
}

#[test]
fn native_and_packed_passes_agree() {
    let setups = setups(Precision::F16);
    for class in [Class::Software, Class::Hardware] {
        let find = |storage| {
            setups.iter().find(|setup| {
                setup.gpu.class() == class && setup.kernel_config == KernelConfig::plain(class, storage)
            })
        };
        match (find(Storage::F16), find(Storage::Packed)) {
            (Some(native), Some(packed)) => compare_storage(native, packed),
            _ => crate::testing::skip("the adapter has no native f16"),
        }
    }
}

fn compare_storage(native: &Setup, packed: &Setup) {
    // A GRU passes differences in the last bit on to all later steps, so it is compared with f64 alone.
    let comparable = |case: &Case| !case.shape.recurrent() && case.shape.activation == Activation::Tanh;
    for mut case in cases().into_iter().filter(comparable) {
        // Beyond the largest f16 and below its smallest normal number.
        case.observations[0] = 1e6;
        case.observations[5] = -70_000.0;
        case.observations[6] = 3e-7;
        for scale in [1.0, 1e-6, 3e5] {
            let (a, b) = (case.run(native, scale), case.run(packed, scale));
            let halves = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u16>(bytes);
            for (a, b) in [(&a.acts, &b.acts), (&a.grads, &b.grads)] {
                let (a, b) = (halves(a), halves(b));
                // All NaN count as equal.
                let nan = |bits: u16| f16::from_bits(bits).is_nan();
                let differ = |(a, b): &(&u16, &u16)| a != b && !(nan(**a) && nan(**b));
                let apart: Vec<_> = a.iter().zip(&b).filter(differ).collect();
                // Drivers may contract the two shaders' sums differently, or skip the native rounding of a number that is used
                // for a mean at once, which changes the last bit of some numbers.
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
    for setup in setups(Precision::F16) {
        let run = case.run(&setup, 1e6);
        assert!(run.gradient.iter().any(|g| !g.is_finite()), "{setup:?}");
    }
}

/// Rounding to storage is the same for native and packed f16.
#[test]
fn conversion_rounds_to_nearest_even_and_keeps_infinity_and_nan() {
    let gpu = crate::testing::unchecked_gpu();
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
    // Two dispatches, because some compilers skip the rounding of a number that is still in a register.
    let kernels =
        ["quads[id.x] = to_quad(data[id.x]);", "data[id.x] = of_quad(quads[id.x]);"].map(|statement| {
            let source: &'static str = source.replace("STATEMENT", statement).leak();
            let variant = storage.apply(crate::gpu::Variant::new(8));
            let shader = Shader { name: "conversion", source, library: &crate::shaders::LIBRARY };
            Kernel::trusted(gpu, &shader, variant, &[Access::Write, Access::Write], 0).unwrap()
        });
    let mut next = noise(9);
    // Every exponent and sign with mantissas around every tie, and with random ones.
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
    for setup in &setups(Precision::F32) {
        for scale in [1e-6f32, 1e6] {
            let mut case = cases().remove(0);
            case.observations.iter_mut().for_each(|x| *x *= scale);
            let run = case.run(setup, 1.0);
            let (logits, values) = case.heads(&case.params);
            Case::compare("logits", &run.logits, &logits, 1e-4);
            Case::compare("values", &run.values, &values, 1e-4);
        }
    }
}

/// Inputs that differ little from a large number: the mean is subtracted first, in the forward and the backward pass.
#[test]
fn observations_far_from_zero_are_normalised() {
    for setup in &setups(Precision::F32) {
        let mut case = cases().remove(0);
        case.observations.iter_mut().for_each(|x| *x = (*x * 64.0).round() / 64.0 + 256.0);
        let run = case.run(setup, 1.0);
        let (logits, values) = case.heads(&case.params);
        Case::compare("logits", &run.logits, &logits, 1e-4);
        Case::compare("values", &run.values, &values, 1e-4);
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    for setup in &[setups(Precision::F32), setups(Precision::F16)].concat() {
        let mut case = cases().remove(0);
        let clean = case.run(setup, 1.0);
        // Feature 0 of agent 0 in environment 1 of slot 0.
        case.observations[1] = f32::NAN;
        let run = case.run(setup, 1.0);
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
        for setup in setups(Precision::F32).iter().filter(|setup| suits(&case, setup)) {
            let run = case.run(setup, 1.0);
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
        for setup in setups(precision).iter().filter(|setup| suits(&case, setup)) {
            let bits = |g: &[f32]| g.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&case.run(setup, 1.0).gradient), bits(&case.run(setup, 1.0).gradient));
        }
    }
}

/// More tiles than workgroups in a row of the dispatch, which has 65,535 when it is not made shorter for the test.
#[test]
fn tiles_beyond_a_row_of_workgroups_are_reached() {
    for gpu in crate::nn::testing::both_classes() {
        let plain = KernelConfig::plain(gpu.class(), Storage::F32);
        sum_many_tiles(&gpu, plain);
        if gpu.class() == Class::Hardware {
            sum_many_tiles(&gpu, KernelConfig { stream: Some(Blocks::sized(8, 64)), ..plain });
        }
    }
}

fn sum_many_tiles(gpu: &Gpu, kernel_config: KernelConfig) {
    // The kernel that ships folds rows as long as those of the grid that it is dispatched with.
    let row = crate::gpu::GROUPS_IN_A_ROW;
    assert_eq!(weight_gradient::groups(row + 9, 1), [row, 2, 1]);
    let shipped = weight_gradient::variant(&kernel_config);
    assert!(shipped.constants.contains(&("GROUPS", crate::gpu::Constant::U32(row))), "{shipped:?}");
    const ROW: u32 = 61;
    let count = 2 * ROW + 9;
    // Each tile sums the gradients of the only quad into a bias of its own.
    let tile = |bias| weight_gradient::Tile {
        kind: 2,
        outputs: 4,
        agents: 1,
        layer_norm_stats: u32::MAX,
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
        layer_norm_stats: unused,
        grads: &gpu.upload("grads", &grads).unwrap(),
        dones_and_masks: unused,
        partials,
    };
    let kernel = weight_gradient::kernel_with_rows_of(gpu, &kernel_config, ROW);
    let group = weight_gradient::bind(gpu, &kernel, buffers).unwrap();
    Recorder::new(gpu).run(&[Command::dispatch_at(&kernel, &group, 0, 0, [ROW, 3, 1])]).unwrap();
    let sums: Vec<f32> = gpu.read(partials).unwrap();
    assert!(sums.chunks_exact(4).all(|sum| *sum == [4.0, 8.0, 12.0, 16.0]));
}

/// The widest layers allowed, whose loops a software adapter would stop without unrolling; checked at two elements of every
/// tensor.
#[test]
fn layers_of_1024_are_whole() {
    let shape =
        Shape { agents: 2, obs_dim: 3, actions: 2, hidden: vec![1024, 1024, 1021], ..Shape::default() };
    let case = Case::new(shape, 1, 1, 8);
    let layout = case.layout();
    let (logits, values) = case.heads(&case.params);
    for gpu in crate::nn::testing::both_classes() {
        let kernel_config = KernelConfig::new(&gpu, Precision::F32, &layout, 1).unwrap();
        let short_loops = kernel_config.unrolled || kernel_config.subgroup_broadcast;
        assert_eq!(short_loops, gpu.class() == Class::Software, "{kernel_config:?}");
        let run = case.run(&Setup { gpu, kernel_config }, 1.0);
        Case::compare("logits", &run.logits, &logits, 5e-5);
        Case::compare("values", &run.values, &values, 5e-5);
        for tensor in &layout.tensors {
            let [rows, columns] = tensor.shape;
            for (row, column) in [(0, columns - 1), (rows - 1, columns / 3)] {
                let at = tensor.first + row * tensor.stride + column;
                let expected = case.difference(at);
                let error = (f64::from(run.gradient[at]) - expected).abs() / expected.abs().max(0.1);
                assert!(
                    error < 5e-3,
                    "{}[{row}][{column}]: {} for {expected}",
                    tensor.name,
                    run.gradient[at]
                );
            }
        }
    }
}
