// The gradients of a block of rows in workgroup memory, from one layer to the layer below.

import package::constants::{TILE, QUADS};
import package::lib::activation::slope;
import package::lib::block::{PARTS, Matrix, values, value_at, sums, multiply, sum_of_parts, column_group, first_quad};
import package::lib::block_forward::{acts, kept_moments};
import package::lib::network::{Layer, place};
import package::lib::quad::{to_quad, of_quad};
import package::lib::slots::batch;

// Makes the sums the values, and 0 the features up to the next multiple of four.
fn store_sums(count: u32, local: u32) {
    // Others may still be multiplying the values.
    workgroupBarrier();
    let c = 4u * column_group(local);
    if (c < count) {
        for (var i = 0u; i < 2u; i++) {
            for (var j = 0u; j < 4u; j++) {
                let sum = select(vec4<f32>(0.0), sums[4u * i + j], c + j < count);
                values[value_at(c + j, first_quad(local) + i)] = sum;
            }
        }
    }
    workgroupBarrier();
}

// Turns the gradients of a layer's normalised inputs, which are the values, into those of the product below. The part of the gradient
// that a LayerNorm passes on needs two sums over the row: of the gradient, and of the gradient times the normalised input.
fn pass_down(layer: Layer, kept: u32, local: u32) {
    let q = local % QUADS;
    let part = local / QUADS;
    let acts0 = place(kept, batch.acts);
    let input = acts0 + layer.input * TILE;
    let by = kept_moments(layer, kept);
    var average = vec4<f32>(0.0);
    var average_normed = vec4<f32>(0.0);
    if (layer.norm == 1u) {
        for (var k = part; k < layer.inputs; k += PARTS) {
            let dn = values[value_at(k, q)];
            average += dn;
            average_normed += dn * (of_quad(acts[input + k * TILE]) - by.mean) * by.scale;
        }
        average = sum_of_parts(average, local) / f32(layer.inputs);
        average_normed = sum_of_parts(average_normed, local) / f32(layer.inputs);
    }
    for (var k = part; k < layer.inputs; k += PARTS) {
        let a = of_quad(acts[input + k * TILE]);
        @if(relu || tanh) let made_from = a;
        @if(gelu || silu) let made_from = of_quad(acts[acts0 + (layer.product + k) * TILE]);
        var dn = values[value_at(k, q)];
        if (layer.norm == 1u) {
            dn = by.scale * (dn - average - (a - by.mean) * by.scale * average_normed);
        }
        // Rounded as the kernels round it that store it, so that an overflow stays visible.
        values[value_at(k, q)] = of_quad(to_quad(dn * slope(made_from)));
    }
}

// From the gradients of a layer's product, which are the values, to those of the product below.
fn descend_layer(layer: Layer, net: u32, kept: u32, local: u32) {
    for (var i = 0u; i < 8u; i++) {
        sums[i] = vec4<f32>(0.0);
    }
    let stride = layer.transposed_stride;
    multiply(Matrix(net + layer.transposed, stride, stride, layer.outputs), local);
    store_sums(layer.inputs, local);
    pass_down(layer, kept, local);
}
