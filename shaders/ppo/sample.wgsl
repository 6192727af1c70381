// Draws the actions of one step (lib/draw). One invocation takes four environments of one agent.

import package::constants::WG;
import package::lib::draw::{p, draw};

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.agents * p.quads) {
        draw(p.step, id.x, id.x);
    }
}
