use super::*;
use crate::gpu::Recorder;
use crate::nn::{Shape, Sharing};
use crate::random::Stream;

/// The formulas in f64, element by element, on sums of the partial sums.
fn expected(layout: &Layout, params: &[f32], sums: &[f64]) -> Vec<f64> {
    let mut gradient = vec![0f64; params.len()];
    for net in &layout.nets {
        let stack = &layout.stacks[net.stack];
        for (l, layer) in stack.layer[..stack.layers as usize].iter().enumerate() {
            let biases = if l == 0 && stack.agent_bias == 1 { layout.shape.agents } else { 1 };
            let at = |offset: u32, row: u32, column: u32| {
                (4 * (net.first + offset + row * layer.stride) + column) as usize
            };
            let d = |c: u32| (0..biases).map(|row| sums[at(layer.bias, row, c)]).sum::<f64>();
            for c in 0..layer.outputs {
                for row in 0..biases {
                    gradient[at(layer.bias, row, c)] = sums[at(layer.bias, row, c)];
                }
            }
            for k in 0..layer.inputs {
                let param = |offset: u32| f64::from(params[at(offset, 0, k)]);
                for c in 0..layer.outputs {
                    let cell = at(layer.weights, k, c);
                    let (n, w) = (sums[cell], f64::from(params[cell]));
                    if c < layer.learnt {
                        gradient[cell] = n;
                    }
                    if layer.norm == 1 {
                        gradient[at(layer.gain, 0, k)] += w * n;
                        gradient[at(layer.offset, 0, k)] += w * d(c);
                        if c < layer.learnt {
                            gradient[cell] = param(layer.gain) * n + param(layer.offset) * d(c);
                        }
                    }
                }
            }
        }
    }
    gradient
}

/// Parameters, and partial sums of parameters, whose padding is 0.
fn made(layout: &Layout, partial_sums: usize) -> (Vec<f32>, Vec<f32>) {
    let mut stream = Stream::new(3, 9);
    let length = layout.params as usize * 4;
    let mut all = vec![0f32; length * (partial_sums + 1)];
    for copy in all.chunks_exact_mut(length) {
        for tensor in &layout.tensors {
            for row in 0..tensor.shape[0] {
                let start = tensor.first + row * tensor.stride;
                copy[start..start + tensor.shape[1]].fill_with(|| stream.normal() as f32);
            }
        }
    }
    let mut partials = all.split_off(length);
    // Outputs that consist of their bias alone have sums, too, which no gradient may take over.
    for copy in partials.chunks_exact_mut(length) {
        for net in &layout.nets {
            let stack = &layout.stacks[net.stack];
            let head = stack.layer[stack.layers as usize - 1];
            for k in 0..head.inputs {
                let row = 4 * (net.first + head.weights + k * head.stride);
                copy[(row + head.learnt) as usize..(row + head.outputs) as usize].fill(1.0);
            }
        }
    }
    (all, partials)
}

fn layouts() -> Vec<Layout> {
    let shape = Shape { agents: 3, obs_dim: 7, actions: 5, hidden: vec![70, 33], ..Shape::default() };
    let shapes = [
        // Tiles of 12 rows for the biases of nine agents, and a last one of a single row.
        Shape { agents: 9, hidden: vec![5], ..shape.clone() },
        // A log standard deviation, whose weights stay 0, without LayerNorm before the first matrix.
        Shape { constants: 2, input_norm: false, ..shape.clone() },
        Shape { sharing: Sharing::Separate, hidden_norm: false, ..shape.clone() },
        Shape { chunk: 4, hidden: vec![21], ..shape.clone() },
        // More agents and inputs than the largest tile has rows.
        Shape { agents: 70, hidden: vec![5], ..shape },
    ];
    shapes.iter().map(|shape| Layout::new(shape).unwrap()).collect()
}

/// Gradient, and the sums of squares of all tiles, which begin at index 3 and are followed by another number.
fn run(gpu: &Gpu, layout: &Layout, params: &[f32], partials: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let count = tiles(layout).len();
    let splits = (partials.len() / params.len()) as u32;
    let [params, partials] = [params, partials].map(|of| gpu.upload("made", of).unwrap());
    // Every number of the parameters is written; padding stays as it is.
    let gradient = gpu.upload("gradient", &vec![0f32; layout.params as usize * 4]).unwrap();
    let step = gpu.upload("step", &vec![-7f32; count + 4]).unwrap();
    let command = command(gpu, layout, splits, 3, [&params, &partials, &gradient, &step]).unwrap();
    Recorder::new(gpu).run(&[command]).unwrap();
    let mut squares: Vec<f32> = gpu.read(&step).unwrap();
    squares.truncate(count + 4);
    assert_eq!(squares.pop(), Some(-7.0));
    assert_eq!(squares[..3], [-7.0; 3]);
    (gpu.read(&gradient).unwrap(), squares.split_off(3))
}

#[test]
fn gradients_and_their_squares_are_those_of_f64() {
    for gpu in crate::testing::both_classes() {
        for layout in layouts() {
            // A rest beside whole iterations of eight loads for each of the invocations that share the sums.
            for splits in [1, 67] {
                let (params, partials) = made(&layout, splits);
                let sums: Vec<f64> = (0..params.len())
                    .map(|i| partials.iter().skip(i).step_by(params.len()).map(|x| f64::from(*x)).sum())
                    .collect();
                let expected = expected(&layout, &params, &sums);
                let (got, squares) = run(&gpu, &layout, &params, &partials);
                for tensor in &layout.tensors {
                    let row = &expected[tensor.first..tensor.first + tensor.shape[1]];
                    assert!(row.iter().all(|x| *x != 0.0), "{}", tensor.name);
                }
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(error <= 2e-5 * expected.abs().max(10.0), "{i}: {got} for {expected}");
                }
                let mut first = 0;
                for net in &layout.nets {
                    let count = tiles_of(&layout, net).len();
                    let found: f64 = squares[first..first + count].iter().map(|x| f64::from(*x)).sum();
                    let own = 4 * net.first as usize..4 * (net.first + net.length) as usize;
                    let wanted: f64 = expected[own].iter().map(|x| x * x).sum();
                    assert!((found / wanted - 1.0).abs() < 1e-5, "{found} for {wanted}");
                    first += count;
                }
                assert_eq!(first, squares.len());
                assert_eq!(run(&gpu, &layout, &params, &partials), (got, squares), "the same bits again");
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_shows_in_the_squares_of_its_network_alone() {
    for gpu in crate::testing::both_classes() {
        let layout = &layouts()[2];
        let (params, clean) = made(layout, 5);
        for poison in [f32::NAN, f32::INFINITY, 3e38] {
            let mut partials = clean.clone();
            // A weight of the third network.
            let place = layout.tensors.iter().find(|tensor| tensor.name == "actor.agent2.1.weight").unwrap();
            partials[params.len() + place.first + 2] = poison;
            let (_, squares) = run(&gpu, layout, &params, &partials);
            let mut first = 0;
            for (number, net) in layout.nets.iter().enumerate() {
                let count = tiles_of(layout, net).len();
                let sum: f32 = squares[first..first + count].iter().sum();
                assert_eq!(sum.is_finite(), number != 2, "{poison}: {sum}");
                first += count;
            }
        }
    }
}

/// Every parameter of every network belongs to one tile, and tiles start at whole vec4s of gains.
#[test]
fn tiles_cover_the_parameters_once() {
    for layout in layouts() {
        let mut seen = vec![0; layout.params as usize];
        for tile in tiles(&layout) {
            assert!(tile.rows <= MOST_ROWS && tile.columns <= tile.stride);
            for row in 0..tile.rows {
                (0..tile.columns).for_each(|c| seen[(tile.first + row * tile.stride + c) as usize] += 1);
            }
            if tile.gain != NONE {
                for four in 0..tile.rows.div_ceil(4) {
                    seen[(tile.gain + four) as usize] += 1;
                    seen[(tile.offset + four) as usize] += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count <= 1));
        for tensor in &layout.tensors {
            for row in 0..tensor.shape[0] {
                let start = tensor.first + row * tensor.stride;
                assert!((start..start + tensor.shape[1]).all(|i| seen[i / 4] == 1), "{}", tensor.name);
            }
        }
    }
}
