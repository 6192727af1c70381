// Parameters of the PPO losses, and the outputs of the networks with their gradients: in buffers, or in the workgroup's memory where
// a kernel keeps blocks of rows there. `at` is a quad of rows of the batch, or of the block.

import package::constants::TILE;
@if(in_blocks) import package::lib::block::{values, value_at};
import package::lib::network::place;
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::slots::batch;

struct Loss {
    // Logits, or real numbers of an action.
    actions: u32,
    // f32 quads of one section of the targets (log-probabilities, advantages, returns).
    section: u32,
    // First vec4 of the masks in dones_and_masks.
    masks: u32,
    // First row of the gradient buffer for the logits, and the row for the value.
    grad_actor: u32,
    grad_critic: u32,
    clip: f32,
    value_clip: f32,
    huber: f32,
    value: f32,
    // A bit for every logit that begins a choice.
    starts: u32,
    // HAPPO: first vec4 of the factors in the statistics' buffer, [slot][env]; the log-probabilities before an agent's epochs follow.
    factors: u32,
    // Choices whose ratios are clipped one by one; 0: the ratio of the whole action is.
    choices: u32,
    // First vec4 of the choices' log-probabilities in the targets, a section per choice.
    choice_targets: u32,
    // Groups of agents that share networks: 1, or one per agent.
    groups: u32,
    // vec4s of the parameters, and workgroups per stack of ppo/gradient.
    parameters: u32,
    partial_sums: u32,
}

@group(0) @binding(8) var<uniform> p: Loss;
@if(!in_blocks) @group(0) @binding(4) var<storage, read_write> grads: array<Quad>;
@if(!in_blocks) @group(0) @binding(5) var<storage, read> head: array<vec4<f32>>;

@if(!in_blocks)
fn logit(at: u32, j: u32) -> vec4<f32> {
    return head[batch.forward.head_actor + at + j * batch.stride];
}

@if(!in_blocks)
fn value_of(at: u32) -> vec4<f32> {
    return head[batch.forward.head_critic + at];
}

@if(!in_blocks)
fn put_logit_gradient(at: u32, j: u32, g: vec4<f32>) {
    grads[place(at, batch.grads) + (p.grad_actor + j) * TILE] = to_quad(g);
}

@if(!in_blocks)
fn put_value_gradient(at: u32, g: vec4<f32>) {
    grads[place(at, batch.grads) + p.grad_critic * TILE] = to_quad(g);
}

// A gradient takes the place of its output, which is not read again. It is rounded as in a buffer, so that an overflow stays visible.
@if(in_blocks)
fn logit(at: u32, j: u32) -> vec4<f32> {
    return values[value_at(j, at)];
}

@if(in_blocks)
fn value_of(at: u32) -> vec4<f32> {
    return values[value_at(0u, at)];
}

@if(in_blocks)
fn put_logit_gradient(at: u32, j: u32, g: vec4<f32>) {
    values[value_at(j, at)] = of_quad(to_quad(g));
}

@if(in_blocks)
fn put_value_gradient(at: u32, g: vec4<f32>) {
    values[value_at(0u, at)] = of_quad(to_quad(g));
}
