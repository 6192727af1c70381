// Converts gradients of the folded weights to gradients of the parameters. With N[k][c] the sum over the rows of normalised input k
// times gradient c, and d[c] the sum of the gradient alone, the matrix W with gain g and offset o before it has
// dW[k][c] = g[k] N[k][c] + o[k] d[c], dg[k] = sum over c of W[k][c] N[k][c] and do[k] = sum over c of W[k][c] d[c].
// The grid is that of nn/fold.

import package::constants::{ROW, WG};
import package::lib::network::{NetworkStack, Layer, NetworkSlice};
import package::network::MAX_LAYERS;

@group(0) @binding(0) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(1) var<storage, read> nets: array<NetworkSlice>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gradient: array<vec4<f32>>;

// Gradient of four biases, over all agents.
fn all_biases(at: u32, stride: u32, rows: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var row = 0u; row < rows; row++) {
        sum += sums[at + row * stride];
    }
    return sum;
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
    let biases = select(1u, net.biases, l == 0u);
    let weights = net.params + layer.weights;
    let bias = net.params + layer.bias;
    let gains = net.params + layer.gain;
    let offsets = net.params + layer.offset;
    if (i < layer.inputs * layer.stride) {
        let k = i / layer.stride;
        var g = sums[weights + i];
        if (layer.norm == 1u) {
            g *= params[gains + k / 4u][k % 4u];
            g += params[offsets + k / 4u][k % 4u] * all_biases(bias + i % layer.stride, layer.stride, biases);
        }
        // Outputs past the trained ones consist of their bias alone.
        let columns = vec4<u32>(4u * (i % layer.stride)) + vec4<u32>(0u, 1u, 2u, 3u);
        gradient[weights + i] = select(vec4<f32>(0.0), g, columns < vec4<u32>(layer.learnt));
    }
    if (i < biases * layer.stride) {
        gradient[bias + i] = sums[bias + i];
    }
    if (layer.norm == 1u && i < (layer.inputs + 3u) / 4u) {
        var by_gain = vec4<f32>(0.0);
        var by_offset = vec4<f32>(0.0);
        for (var c = 0u; c < layer.stride; c++) {
            let d = all_biases(bias + c, layer.stride, biases);
            for (var j = 0u; j < 4u; j++) {
                if (4u * i + j < layer.inputs) {
                    let at = weights + (4u * i + j) * layer.stride + c;
                    // An assignment to component j would make FXC unroll every loop around it, which it then refuses.
                    let component = vec4<u32>(j) == vec4<u32>(0u, 1u, 2u, 3u);
                    by_gain = select(by_gain, by_gain + dot(params[at], sums[at]), component);
                    by_offset = select(by_offset, by_offset + dot(params[at], d), component);
                }
            }
        }
        gradient[gains + i] = by_gain;
        gradient[offsets + i] = by_offset;
    }
}
