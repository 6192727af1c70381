// Observations that an environment writes, in the storage type of the networks. Binding 4 of every environment.

import package::lib::quad::halves;

@if(native) @group(0) @binding(4) var<storage, read_write> observations: array<f16>;
@if(packed) @group(0) @binding(4) var<storage, read_write> observations: array<atomic<u32>>;
@if(!native && !packed) @group(0) @binding(4) var<storage, read_write> observations: array<f32>;

@if(native)
fn show(at: u32, value: f32) {
    observations[at] = f16(value);
}

// Two environments share a word; each writes its own half.
@if(packed)
fn show(at: u32, value: f32) {
    let shift = at % 2u * 16u;
    atomicAnd(&observations[at / 2u], ~(0xffffu << shift));
    atomicOr(&observations[at / 2u], halves(vec4<f32>(value)).x << shift);
}

@if(!native && !packed)
fn show(at: u32, value: f32) {
    observations[at] = value;
}
