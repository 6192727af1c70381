// Working weights of the networks: every matrix times the gain of the LayerNorm before it, every bias plus the matrix times the
// LayerNorm's offset, and the transposed matrices for the backward pass. An invocation takes four inputs by four outputs of a matrix.

import package::constants::{COLUMNS, GROUPS, WG};
import package::lib::network::{NetworkStack, Layer, NetworkSlice};
import package::lib::quad::{Quad, to_quad, pack, unpack};
import package::network::MAX_LAYERS;

@group(0) @binding(4) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(5) var<storage, read> nets: array<NetworkSlice>;
@group(0) @binding(6) var<storage, read> params: array<vec4<f32>>;
@if(texture) @group(0) @binding(7) var<storage, read_write> working: array<vec4<f32>>;
@if(!texture) @group(0) @binding(7) var<storage, read_write> working: array<Quad>;

// Invocations that share the sum of a column group.
const PARTS: u32 = WG / COLUMNS;

var<workgroup> parts: array<vec4<f32>, WG>;

@if(!texture)
fn stored(w: vec4<f32>) -> Quad {
    return to_quad(w);
}

// The texture holds f32; the values are rounded to the storage type all the same.
@if(texture)
fn stored(w: vec4<f32>) -> vec4<f32> {
    @if(rounded) return unpack(pack(w));
    @else return w;
}

// Four inputs by four outputs. Rows of a matrix are padded with zeros to a multiple of 16.
fn fold_matrix(layer: Layer, net: NetworkSlice, l: u32, i: u32) {
    if (i >= (layer.inputs + 3u) / 4u * layer.stride) {
        return;
    }
    let inputs = i / layer.stride;
    let outputs = i % layer.stride;
    let at = layer.weights + 4u * inputs * layer.stride + outputs;
    let own = net.params + at;
    var gains = vec4<f32>(1.0);
    if (layer.norm == 1u) {
        gains = params[net.params + layer.gain + inputs];
    }
    let w = mat4x4<f32>(
        params[own] * gains.x,
        params[own + layer.stride] * gains.y,
        params[own + 2u * layer.stride] * gains.z,
        params[own + 3u * layer.stride] * gains.w,
    );
    let to = net.working + at;
    working[to] = stored(w[0]);
    working[to + layer.stride] = stored(w[1]);
    working[to + 2u * layer.stride] = stored(w[2]);
    working[to + 3u * layer.stride] = stored(w[3]);
    if (l > 0u) {
        let t = transpose(w);
        fold_transposed(layer, net, 4u * outputs, inputs, t[0]);
        fold_transposed(layer, net, 4u * outputs + 1u, inputs, t[1]);
        fold_transposed(layer, net, 4u * outputs + 2u, inputs, t[2]);
        fold_transposed(layer, net, 4u * outputs + 3u, inputs, t[3]);
    }
}

fn fold_transposed(layer: Layer, net: NetworkSlice, output: u32, inputs: u32, w: vec4<f32>) {
    if (output < layer.outputs) {
        working[net.working + layer.transposed + output * layer.transposed_stride + inputs] = stored(w);
    }
}

// Biases of COLUMNS column groups from `first` on. Has a barrier.
fn fold_bias(layer: Layer, net: NetworkSlice, l: u32, first: u32, local: u32) {
    let column = min(first + local % COLUMNS, layer.stride - 1u);
    var carried = vec4<f32>(0.0);
    if (layer.norm == 1u) {
        for (var four = local / COLUMNS; 4u * four < layer.inputs; four += PARTS) {
            let offsets = params[net.params + layer.offset + four];
            let at = net.params + layer.weights + 4u * four * layer.stride + column;
            let a = params[at] * offsets.x;
            let b = params[at + layer.stride] * offsets.y;
            let c = params[at + 2u * layer.stride] * offsets.z;
            let d = params[at + 3u * layer.stride] * offsets.w;
            carried += (a + b) + (c + d);
        }
    }
    parts[local] = carried;
    workgroupBarrier();
    carried = vec4<f32>(0.0);
    for (var part = 0u; part < PARTS; part++) {
        carried += parts[part * COLUMNS + local % COLUMNS];
    }
    let rows = select(1u, net.biases, l == 0u);
    for (var row = local / COLUMNS; row < rows && first + local % COLUMNS < layer.stride; row += PARTS) {
        let at = layer.bias + row * layer.stride + column;
        working[net.working + at] = stored(params[net.params + at] + carried);
    }
}

// The part of workgroup `group` in the layer with this number, of all layers of all networks.
fn fold(number: u32, group: vec3<u32>, local: u32) {
    let net = nets[number / MAX_LAYERS];
    let l = number % MAX_LAYERS;
    if (l >= stacks[net.stack].layers) {
        return;
    }
    let layer = stacks[net.stack].layer[l];
    let place = group.y * GROUPS + group.x;
    fold_matrix(layer, net, l, place * WG + local);
    if (place * COLUMNS < layer.stride) {
        fold_bias(layer, net, l, place * COLUMNS, local);
    }
}
