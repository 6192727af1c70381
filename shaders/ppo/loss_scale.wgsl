// The dynamic loss scale: halved when a gradient was not finite, doubled after many good steps in a row. One invocation.

struct LossScale {
    growth: f32,
    backoff: f32,
    // Good steps before it grows; 0: the scale stays.
    interval: f32,
    nets: u32,
}

@group(0) @binding(0) var<uniform> p: LossScale;
@group(0) @binding(1) var<storage, read> optimizer: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;

@compute @workgroup_size(1)
fn main() {
    if (p.interval == 0.0) {
        return;
    }
    var good = true;
    for (var net = 0u; net < p.nets; net++) {
        good = good && optimizer[net * 2u + 1u].z == 1.0;
    }
    var scale = scalars[9];
    var steps = scalars[10] + 1.0;
    if (!good) {
        // Never zero: it is divided by.
        scale = max(scale * p.backoff, 1e-30);
        steps = 0.0;
    } else if (steps >= p.interval) {
        // As torch: not into infinity.
        scale = select(scale, scale * p.growth, scale * p.growth < 3e38);
        steps = 0.0;
    }
    scalars[9] = scale;
    scalars[10] = steps;
}
