// The step kernel of environments that are WGSL functions: one invocation owns one environment, and plays one step of it. This text
// follows env/functions.

import package::constants::WG;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    phalanx_env = id.x;
    phalanx_now = phalanx_p.step;
    if (phalanx_env >= phalanx_p.envs) {
        return;
    }
    if (phalanx_p.reset == 1u) {
        phalanx_start();
        return;
    }
    phalanx_load_all();
    phalanx_play();
    phalanx_store_all();
}
