// Gradients with respect to all parameters of all networks. A workgroup owns one tile of one tensor and one share of the
// rows; its lanes stride over the rows and are summed in a fixed order, so that every run gives the same bits.

import package::constants::{GROUPS, WG};
import package::lib::network::Batch;

struct Job {
    // 0: matrix tile, 8 inputs by 4 outputs. 1: four biases. 2: four gains and offsets of a LayerNorm.
    kind: u32,
    // Row of the left factor in the activation buffer (matrix: LayerNorm output; LayerNorm: its input).
    left: u32,
    // Row of the gradient.
    right: u32,
    // Row of the LayerNorm's mean.
    moments: u32,
    // Where the result goes, in vec4s of the parameter buffer; vec4s to the next input row (matrix) or from gain to
    // offset (LayerNorm).
    output: u32,
    stride: u32,
    // Inputs of the tile that exist, and outputs.
    inputs: u32,
    outputs: u32,
    // Agents whose rows count.
    first_agent: u32,
    agents: u32,
    pad0: u32,
    pad1: u32,
}

struct Split {
    // Shares of the rows, and vec4s from one share's parameters to the next.
    count: u32,
    stride: u32,
    jobs: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> split: Split;
@group(0) @binding(2) var<storage, read> jobs: array<Job>;
@group(0) @binding(3) var<storage, read> acts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;

var<workgroup> shared_sums: array<vec4<f32>, WG * 8u>;

// 1 where the output exists, 0 in the padding.
fn keep(outputs: u32) -> vec4<bool> {
    return vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(outputs);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.jobs) {
        return;
    }
    let job = jobs[number];
    let s = batch.stride;
    let per_slot = batch.agents * batch.quads;
    let per_job = job.agents * batch.quads;
    let total = batch.rows / per_slot * per_job;
    let share = (total + split.count - 1u) / split.count;
    let end = min(total, (group.z + 1u) * share);

    var s0 = vec4<f32>(0.0); var s1 = vec4<f32>(0.0); var s2 = vec4<f32>(0.0); var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0); var s5 = vec4<f32>(0.0); var s6 = vec4<f32>(0.0); var s7 = vec4<f32>(0.0);
    for (var i = group.z * share + lane; i < end; i += WG) {
        var row = i;
        if (job.agents != batch.agents) {
            row = i / per_job * per_slot + job.first_agent * batch.quads + i % per_job;
        }
        let right = job.right * s + row;
        // A row vector times this matrix sums over the four rows, for four outputs at once.
        let g = mat4x4<f32>(grads[right], grads[right + s], grads[right + 2u * s], grads[right + 3u * s]);
        if (job.kind == 0u) {
            let left = job.left * s + row;
            s0 += acts[left] * g;
            s1 += acts[left + s] * g;
            s2 += acts[left + 2u * s] * g;
            s3 += acts[left + 3u * s] * g;
            s4 += acts[left + 4u * s] * g;
            s5 += acts[left + 5u * s] * g;
            s6 += acts[left + 6u * s] * g;
            s7 += acts[left + 7u * s] * g;
        } else if (job.kind == 1u) {
            s0 += vec4<f32>(1.0) * g;
        } else {
            let left = job.left * s + row;
            let mean = acts[job.moments * s + row];
            let inverse = acts[(job.moments + 1u) * s + row];
            let normed = mat4x4<f32>(
                (acts[left] - mean) * inverse,
                (acts[left + s] - mean) * inverse,
                (acts[left + 2u * s] - mean) * inverse,
                (acts[left + 3u * s] - mean) * inverse,
            );
            s0 += vec4<f32>(dot(normed[0], g[0]), dot(normed[1], g[1]), dot(normed[2], g[2]), dot(normed[3], g[3]));
            s1 += vec4<f32>(1.0) * g;
        }
    }

    shared_sums[lane * 8u] = s0;
    shared_sums[lane * 8u + 1u] = s1;
    shared_sums[lane * 8u + 2u] = s2;
    shared_sums[lane * 8u + 3u] = s3;
    shared_sums[lane * 8u + 4u] = s4;
    shared_sums[lane * 8u + 5u] = s5;
    shared_sums[lane * 8u + 6u] = s6;
    shared_sums[lane * 8u + 7u] = s7;
    workgroupBarrier();
    if (lane < 8u) {
        var sum = vec4<f32>(0.0);
        for (var other = 0u; other < WG; other++) {
            sum += shared_sums[other * 8u + lane];
        }
        if (lane < job.inputs) {
            // select, not a product: what lies in the padding may be anything, also NaN.
            let value = select(vec4<f32>(0.0), sum, keep(job.outputs));
            partials[group.z * split.stride + job.output + lane * job.stride] = value;
        }
    }
}
