// Where the parts of a network lie. The host's counterpart is `nn::layout`; the field order is shared.
//
// Rows of a batch are taken four at a time: a `vec4` holds one feature of four environments. Activations are stored
// feature by feature, so that neighbouring invocations read neighbouring addresses.

const MAX_LAYERS: u32 = 5u;

struct Layer {
    inputs: u32,
    outputs: u32,
    // vec4s between two rows of the weight matrix [inputs][outputs].
    stride: u32,
    // Parameter offsets, in vec4s from the start of the network.
    weights: u32,
    bias: u32,
    // Gain and offset of the LayerNorm before the matrix.
    gain: u32,
    offset: u32,
    // Rows in the activation buffer: what enters the LayerNorm, what leaves it, its mean and 1/deviation.
    before: u32,
    after: u32,
    moments: u32,
    // Rows in the gradient buffer: with respect to the matrix product, and to what left the LayerNorm.
    grad_product: u32,
    grad_normed: u32,
}

struct Role {
    layers: u32,
    // First parameter of the role's first network, and vec4s from one agent's network to the next (0: shared).
    params: u32,
    net_stride: u32,
    // 1: the input is the joint observation of all agents, 0: the agent's own.
    joint: u32,
    // 1: a shared network tells agents apart by a bias of their own in the first layer.
    agent_bias: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    layer: array<Layer, MAX_LAYERS>,
}

// One dispatch over rows: observation slots [first_slot, first_slot + rows / (agents * quads)).
struct Batch {
    first_slot: u32,
    // Quads of rows in this dispatch, and in the buffers.
    rows: u32,
    stride: u32,
    agents: u32,
    // num_envs / 4.
    quads: u32,
    obs_dim: u32,
    // First role, and where each role's head goes in the head buffer, in vec4s.
    first_role: u32,
    head_actor: u32,
    head_critic: u32,
    // Number of the micro-batch within the iteration, for its statistics.
    index: u32,
    pad0: u32,
    pad1: u32,
}
