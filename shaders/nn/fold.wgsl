// Computes the working weights: every matrix times the gain of the LayerNorm before it, every bias plus the matrix times the
// LayerNorm's offset, and the transposed matrices for the backward pass. The grid is vec4s of a layer in x and y, layers of networks
// in z.

import package::constants::{ROW, WG};
import package::lib::network::{NetworkStack, Layer, NetworkSlice};
import package::network::MAX_LAYERS;
import package::lib::quad::{Quad, to_quad, pack, unpack};

@group(0) @binding(0) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(1) var<storage, read> nets: array<NetworkSlice>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@if(texture) @group(0) @binding(3) var<storage, read_write> working: array<vec4<f32>>;
@if(!texture) @group(0) @binding(3) var<storage, read_write> working: array<Quad>;

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

fn gain(layer: Layer, net: u32, k: u32) -> f32 {
    if (layer.norm == 0u) {
        return 1.0;
    }
    return params[net + layer.gain + k / 4u][k % 4u];
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    let net = nets[id.z / MAX_LAYERS];
    let l = id.z % MAX_LAYERS;
    if (l >= stacks[net.stack].layers) {
        return;
    }
    let layer = stacks[net.stack].layer[l];
    let own = net.params;
    if (i < layer.inputs * layer.stride) {
        let w = params[own + layer.weights + i] * gain(layer, own, i / layer.stride);
        working[net.working + layer.weights + i] = stored(w);
    }
    if (i < layer.stride) {
        var carried = vec4<f32>(0.0);
        if (layer.norm == 1u) {
            for (var first = 0u; first < layer.inputs; first += 4u) {
                let offsets = params[own + layer.offset + first / 4u];
                for (var j = 0u; j < 4u; j++) {
                    let w = params[own + layer.weights + min(first + j, layer.inputs - 1u) * layer.stride + i];
                    carried += select(vec4<f32>(0.0), offsets[j] * w, first + j < layer.inputs);
                }
            }
        }
        for (var row = 0u; row < select(1u, net.biases, l == 0u); row++) {
            let at = layer.bias + row * layer.stride + i;
            working[net.working + at] = stored(params[own + at] + carried);
        }
    }
    if (l > 0u && i < layer.outputs * layer.transposed_stride) {
        let c = i / layer.transposed_stride;
        let k = i % layer.transposed_stride * 4u;
        var w = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            if (k + j < layer.inputs) {
                w[j] = params[own + layer.weights + (k + j) * layer.stride + c / 4u][c % 4u] * gain(layer, own, k + j);
            }
        }
        working[net.working + layer.transposed + i] = stored(w);
    }
}
