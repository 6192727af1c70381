// The layers of nn/stream/backward without matrix units: lib/block multiplies the gradients of WIDTH outputs by WIDTH inputs at a time.

import package::constants::{TILE, QUADS, WIDTH};
import package::lib::backward::{grads, Row, below_of, store_gradient};
import package::lib::block::{PARTS, Matrix, values, value_at, sums, multiply, column_group};
import package::lib::network::Layer;
import package::lib::quad::of_quad;

// Copies the gradients of `count` outputs from number `start` on into the values, and 0 up to the next multiple of four. Four loads of an
// invocation come before the first use, or each would wait for the one before.
fn stage_gradients(above: u32, start: u32, count: u32, local: u32) {
    for (var first = local / QUADS; first < (count + 3u) / 4u * 4u; first += 4u * PARTS) {
        var loaded: array<vec4<f32>, 4>;
        for (var i = 0u; i < 4u; i++) {
            loaded[i] = of_quad(grads[above + (start + min(first + i * PARTS, count - 1u)) * TILE]);
        }
        for (var i = 0u; i < 4u; i++) {
            let c = first + i * PARTS;
            values[value_at(c, local % QUADS)] = select(vec4<f32>(0.0), loaded[i], c < count);
        }
    }
}

// Gradients of all normalised inputs of a layer. `w0` is the first vec4 of the transposed matrix, `above` the index of the own quad's
// gradients of the layer's outputs.
fn product(layer: Layer, w0: u32, above: u32, rows: array<Row, 2>, local: u32, subgroup: u32) {
    let stride = layer.transposed_stride;
    for (var k = 0u; k < layer.inputs; k += WIDTH) {
        for (var i = 0u; i < 8u; i++) {
            sums[i] = vec4<f32>(0.0);
        }
        for (var start = 0u; start < layer.outputs; start += WIDTH) {
            let count = min(WIDTH, layer.outputs - start);
            // Gradients that are not too many stay for all inputs.
            if (k == 0u || layer.outputs > WIDTH) {
                workgroupBarrier();
                stage_gradients(above, start, count, local);
            }
            multiply(Matrix(w0 + start * stride + k / 4u, stride, stride - k / 4u, count), local);
        }
        let first = k + 4u * column_group(local);
        for (var i = 0u; i < 2u; i++) {
            let below = below_of(rows[i], layer);
            for (var j = 0u; j < 4u; j++) {
                if (first + j < layer.inputs) {
                    store_gradient(below, first + j, sums[4u * i + j]);
                }
            }
        }
    }
    // Others may still be multiplying the values.
    workgroupBarrier();
}
