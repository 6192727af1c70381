// Working weights of the networks, read as vec4s. Binding 2 of the forward and the backward passes, except with cooperative matrices, whose
// weights are f16s in lib/cooperative.

import package::constants::TEXTURE_ROW;
import package::lib::quad::{Quad, of_quad};

@if(texture) @group(0) @binding(2) var weights: texture_2d<f32>;
@if(!texture && !in_rollout) @group(0) @binding(2) var<storage, read> weights: array<Quad>;
@if(!texture && in_rollout) @group(0) @binding(25) var<storage, read> weights: array<Quad>;

@if(texture)
fn weight(i: u32) -> vec4<f32> {
    return textureLoad(weights, vec2<u32>(i % TEXTURE_ROW, i / TEXTURE_ROW), 0);
}

@if(!texture)
fn weight(i: u32) -> vec4<f32> {
    return of_quad(weights[i]);
}
