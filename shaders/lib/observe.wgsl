// Observations that an environment writes, in the storage type of the networks. Binding 4 of every environment.

import package::lib::quad::{halves, unpack};

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

// A feature of four environments, by the number of their quad in the buffer.
@if(native)
fn observed(quad: u32) -> vec4<f32> {
    let at = 4u * quad;
    return vec4<f32>(vec4<f16>(observations[at], observations[at + 1u], observations[at + 2u], observations[at + 3u]));
}

@if(packed)
fn observed(quad: u32) -> vec4<f32> {
    return unpack(vec2<u32>(atomicLoad(&observations[2u * quad]), atomicLoad(&observations[2u * quad + 1u])));
}

@if(!native && !packed)
fn observed(quad: u32) -> vec4<f32> {
    let at = 4u * quad;
    return vec4<f32>(observations[at], observations[at + 1u], observations[at + 2u], observations[at + 3u]);
}
