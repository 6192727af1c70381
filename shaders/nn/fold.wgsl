// Computes the working weights (lib/fold): parts of a layer in x and y, layers of networks in z.

import package::constants::WG;
import package::lib::fold::fold;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    fold(group.z, group, local);
}
