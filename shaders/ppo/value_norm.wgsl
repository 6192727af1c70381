// One update of the running moments of the returns (ValueNorm), from the batch moments that ppo/moments left.

struct ValueNorm {
    // 1 - beta, exact in f32 where beta itself is not.
    weight: f32,
    floor: f32,
    // 0: values are left as they are.
    enabled: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: ValueNorm;
@group(0) @binding(1) var<storage, read_write> scalars: array<f32>;

@compute @workgroup_size(1)
fn main() {
    if (p.enabled == 0u) {
        scalars[3] = 0.0;
        scalars[4] = 1.0;
        return;
    }
    let first = scalars[0] + p.weight * (scalars[7] - scalars[0]);
    let second = scalars[1] + p.weight * (scalars[8] - scalars[1]);
    let debias = scalars[2] + p.weight * (1.0 - scalars[2]);
    scalars[0] = first;
    scalars[1] = second;
    scalars[2] = debias;
    let scale = max(debias, 1e-5);
    let mean = first / scale;
    scalars[3] = mean;
    scalars[4] = sqrt(max(second / scale - mean * mean, p.floor));
}
