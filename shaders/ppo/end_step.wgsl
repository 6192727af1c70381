// Ends an optimizer step and begins the next minibatch. Working weights from the new weights (lib/fold): parts of a layer in x and y,
// layers of networks in z. Before them, the first workgroup takes over the optimizer state that ppo/adamw left beside the old one, moves
// the loss scale, and begins the minibatch (lib/minibatch): ppo/adamw reads what it writes, in all its workgroups.

import package::constants::WG;
import package::lib::fold::fold;
import package::lib::minibatch::{begin_minibatch, p, scalars};
import package::lib::optimizer_step::is_skipped;
import package::optimizer::STATE;
import package::scalars::{LOSS_SCALE, GOOD_STEPS, STOPPED};

struct EndStep {
    nets: u32,
    // Dynamic loss scale: number of finite steps in a row before it grows (0: it is constant), and the factors of growth and backoff.
    interval: f32,
    growth: f32,
    backoff: f32,
}

@group(0) @binding(8) var<uniform> end: EndStep;
@group(0) @binding(9) var<storage, read> step: array<f32>;
@group(0) @binding(10) var<storage, read_write> optimizer: array<f32>;

// Halved when a gradient was not finite, doubled after many good steps in a row, as torch.amp.GradScaler does.
fn update_loss_scale() {
    var good = true;
    for (var net = 0u; net < end.nets; net++) {
        good = good && !is_skipped(step[net * STATE + 6u]);
    }
    var scale = scalars[LOSS_SCALE];
    var steps = scalars[GOOD_STEPS] + 1.0;
    if (!good) {
        // Above zero, because gradients are divided by it.
        scale = max(scale * end.backoff, 1e-30);
        steps = 0.0;
    } else if (steps >= end.interval) {
        // No growth to infinity.
        scale = select(scale, scale * end.growth, scale * end.growth < 3e38);
        steps = 0.0;
    }
    scalars[LOSS_SCALE] = scale;
    scalars[GOOD_STEPS] = steps;
}

fn end_step(local: u32) {
    // No update after the stop of this rollout's updates.
    let stopped = scalars[STOPPED] == 1.0;
    for (var i = local; i < end.nets * STATE && !stopped; i += WG) {
        optimizer[i] = step[i];
    }
    if (local == 0u && !stopped && end.interval > 0.0) {
        update_loss_scale();
    }
    // The next minibatch may set the stop, which the other invocations read above.
    storageBarrier();
    if (p.begins == 1u) {
        begin_minibatch(local);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (group.z > 0u) {
        fold(group.z - 1u, group, local);
    } else if (group.x + group.y == 0u) {
        end_step(local);
    }
}
