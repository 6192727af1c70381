// Storage of a quad (one number of four rows): 16 bytes, or 8 in f16. All types of one precision store the same bytes; speed and the
// adapter's features decide which type a kernel declares.

@if(native) alias Quad = vec4<f16>;
@if(packed && !wide_loads) alias Quad = vec2<u32>;
@if(packed && wide_loads) alias Quad = u64;
@if(!native && !packed && !wide_loads) alias Quad = vec4<f32>;
@if(!native && !packed && wide_loads) alias Quad = vec2<u64>;

// The nearest f16 of each component, ties to even, in the low 16 bits. Values beyond the largest f16 become infinity, which the loss
// scale has to detect. pack2x16float leaves that case undefined and rounds towards zero on some drivers.
fn halves(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let size = bits & vec4<u32>(0x7fffffffu);
    let even = (size >> vec4<u32>(13u)) & vec4<u32>(1u);
    let normal = (size + vec4<u32>(0xfffu) + even - vec4<u32>(0x38000000u)) >> vec4<u32>(13u);
    // Subnormal f16: adding 1/2 leaves the rounded multiples of 2^-24 in the low bits.
    let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(size) + vec4<f32>(0.5)) - vec4<u32>(0x3f000000u);
    var half = select(normal, subnormal, size < vec4<u32>(0x38800000u));
    half = select(half, vec4<u32>(0x7c00u), size >= vec4<u32>(0x477ff000u));
    half = select(half, vec4<u32>(0x7e00u), size > vec4<u32>(0x7f800000u));
    return half | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn pack(v: vec4<f32>) -> vec2<u32> {
    let half = halves(v);
    return vec2<u32>(half.x | (half.y << 16u), half.z | (half.w << 16u));
}

fn unpack(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Drivers may convert values beyond the largest f16 to a finite number, but not infinity.
@if(native)
fn to_quad(v: vec4<f32>) -> Quad {
    return vec4<f16>(select(v, v * 1e38, abs(v) >= vec4<f32>(65520.0)));
}

@if(native)
fn of_quad(q: Quad) -> vec4<f32> {
    return vec4<f32>(q);
}

@if(packed && !wide_loads)
fn to_quad(v: vec4<f32>) -> Quad {
    return pack(v);
}

@if(packed && !wide_loads)
fn of_quad(q: Quad) -> vec4<f32> {
    return unpack(q);
}

@if(wide_loads)
fn pair(words: vec2<u32>) -> u64 {
    return u64(words.x) | (u64(words.y) << 32u);
}

@if(wide_loads)
fn unpair(two: u64) -> vec2<u32> {
    return vec2<u32>(u32(two), u32(two >> 32u));
}

@if(packed && wide_loads)
fn to_quad(v: vec4<f32>) -> Quad {
    return pair(pack(v));
}

@if(packed && wide_loads)
fn of_quad(q: Quad) -> vec4<f32> {
    return unpack(unpair(q));
}

@if(!native && !packed && wide_loads)
fn to_quad(v: vec4<f32>) -> Quad {
    let bits = bitcast<vec4<u32>>(v);
    return vec2<u64>(pair(bits.xy), pair(bits.zw));
}

@if(!native && !packed && wide_loads)
fn of_quad(q: Quad) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(unpair(q.x), unpair(q.y)));
}

@if(!native && !packed && !wide_loads)
fn to_quad(v: vec4<f32>) -> Quad {
    return v;
}

@if(!native && !packed && !wide_loads)
fn of_quad(q: Quad) -> vec4<f32> {
    return q;
}
