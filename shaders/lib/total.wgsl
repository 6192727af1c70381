// The sum over the invocations of a workgroup, in a fixed order.

import package::constants::WG;

var<workgroup> lanes: array<vec4<f32>, WG>;

// All invocations get the same sum: a tree, as WG is a power of two. Of few invocations, the width of a register of a CPU, each sums
// all: barriers cost more there.
fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    if (WG > 8u) {
        for (var half = WG / 2u; half > 0u; half /= 2u) {
            if (lane < half) {
                lanes[lane] += lanes[lane + half];
            }
            workgroupBarrier();
        }
    }
    var sum = lanes[0];
    if (WG <= 8u) {
        for (var other = 1u; other < WG; other++) {
            sum += lanes[other];
        }
    }
    workgroupBarrier();
    return sum;
}
