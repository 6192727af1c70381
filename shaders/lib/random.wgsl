// Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon et al., SC11). The same key and counter give the
// same bits on every device, in any order of evaluation.

fn rotate(x: u32, bits: u32) -> u32 {
    return (x << bits) | (x >> (32u - bits));
}

fn mix(x: vec2<u32>, bits: u32) -> vec2<u32> {
    let sum = x.x + x.y;
    return vec2<u32>(sum, rotate(x.y, bits) ^ sum);
}

fn rounds_even(x: vec2<u32>) -> vec2<u32> {
    return mix(mix(mix(mix(x, 13u), 15u), 26u), 6u);
}

fn rounds_odd(x: vec2<u32>) -> vec2<u32> {
    return mix(mix(mix(mix(x, 17u), 29u), 16u), 24u);
}

fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let parity = 0x1BD11BDAu ^ key.x ^ key.y;
    var x = counter + key;
    x = rounds_even(x) + vec2<u32>(key.y, parity + 1u);
    x = rounds_odd(x) + vec2<u32>(parity, key.x + 2u);
    x = rounds_even(x) + vec2<u32>(key.x, key.y + 3u);
    x = rounds_odd(x) + vec2<u32>(key.y, parity + 4u);
    x = rounds_even(x) + vec2<u32>(parity, key.x + 5u);
    return x;
}

// Uniform in [0, 1), 24 bits.
fn unit(bits: u32) -> f32 {
    return f32(bits >> 8u) * (1.0 / 16777216.0);
}
