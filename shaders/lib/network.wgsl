// Offsets of the parts of a network in the buffers. Counterpart of `nn::layout`, with the same order of fields.
//
// Rows of a batch are processed four at a time: a quad holds one feature of four environments. Activations and their gradients are
// stored in blocks of TILE quads of rows, feature by feature within a block, so that the data of a workgroup is contiguous.

import package::constants::TILE;
import package::network::MAX_LAYERS;

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
    // 1: there is a LayerNorm.
    norm: u32,
    // The transposed matrix, from the start of the network's working weights, and vec4s between two of its rows.
    transposed: u32,
    transposed_stride: u32,
    // Row of the activation buffer with the input (unused by layer 0, which reads observations), and with the argument of the
    // activation function that produced it; the same row if the derivative follows from the function's value.
    input: u32,
    product: u32,
    // Row of the LayerNorm's mean; 1/deviation follows.
    layer_norm_stats: u32,
    // Row of the gradient buffer for the matrix product.
    grad: u32,
    // Outputs with trained weights; those after them consist of their bias alone.
    learnt: u32,
    // ORDINARY or a kind of a GRU, of package::network.
    kind: u32,
    // Row of the activation buffer for the output (the head has a buffer of its own), and for the argument of its activation function.
    output: u32,
    made_from: u32,
    // Row of the gradient buffer for the input.
    below: u32,
    pad0: u32,
}

struct NetworkStack {
    layers: u32,
    // First parameter of the stack's first network, and vec4s from one agent's network to the next (0: shared).
    params: u32,
    net_stride: u32,
    // The same for the working weights.
    working: u32,
    working_stride: u32,
    // Input of the first layer: OWN, ALL or STATE of package::network.
    input_kind: u32,
    // 1: every agent has a bias of its own in the first layer of a shared network.
    agent_bias: u32,
    // Number of networks of the stack.
    nets: u32,
    layer: array<Layer, MAX_LAYERS>,
}

// One network.
struct NetworkSlice {
    // First vec4 and number of vec4s of the parameters, and first vec4 of the working weights.
    params: u32,
    length: u32,
    working: u32,
    // 0: actor, 1: critic.
    stack: u32,
    // Rows of the first layer's bias.
    biases: u32,
    // The agent it belongs to, counted from 1; 0: all agents.
    agent: u32,
    // Its tiles of nn/reduce.
    first_tile: u32,
    tiles: u32,
}

// Rows of one dispatch: observation slots [first_slot, first_slot + rows / (agents * quads)), or the slots that the order lists
// there. The parts are multiples of 16 bytes, the alignment of structures in uniform buffers.
struct Batch {
    first_slot: u32,
    // Quads of rows in this dispatch, and in the buffers (a multiple of TILE).
    rows: u32,
    stride: u32,
    agents: u32,
    // num_envs / 4.
    quads: u32,
    obs_dim: u32,
    // Rows of the activation buffer and of the gradient buffer.
    acts: u32,
    grads: u32,
    // First quad of the environments' own states, which follow the observations of all slots, and features of a state.
    first_state: u32,
    state_dim: u32,
    // First vec4 of the order [place][quad] in dones_and_masks (ppo/shuffle): the slots of a quad of environments in shuffled
    // minibatches. 0: slots are consecutive.
    order: u32,
    // 1: the gradient's partial sums begin with this batch.
    starts_sum: u32,
    forward: ForwardPart,
    recurrent: RecurrentPart,
    loss: LossPart,
}

// The part of a Batch for the forward pass, the backward pass and the loss.
struct ForwardPart {
    // 0: both stacks; 1: critics only.
    first_stack: u32,
    // 1: a backward pass follows, which reads the LayerNorms' statistics.
    keep: u32,
    // First vec4 of the logits and of the values in the head buffer.
    head_actor: u32,
    head_critic: u32,
}

// The part of a Batch for networks with a GRU.
struct RecurrentPart {
    // Slots that an invocation iterates over.
    length: u32,
    // Slots between two stored states.
    chunk: u32,
    // Steps of the rollout, and slots of truncated episodes.
    steps: u32,
    truncations: u32,
    // First quad of the flags, in dones_and_masks, of the episodes that ended before slot 0.
    endings: u32,
    // 1: new states are stored for later dispatches.
    store_states: u32,
    pad0: u32,
    pad1: u32,
}

// The part of a Batch for the loss.
struct LossPart {
    // Number of the micro-batch within the iteration, and of its minibatch within the rollout.
    index: u32,
    minibatch: u32,
    // HAPPO: the agent that learns, counted from 1; 0: all agents learn.
    agent_step: u32,
    // HAPPO: 1: keep the log-probabilities of this agent's actions, 2: multiply the ratios to those kept into the factors of the agents
    // after it; either way learn nothing. 0: learn.
    update_factors: u32,
}

// Index of row `row` of feature 0 in a buffer of `features` features; the next feature is TILE further.
fn place(row: u32, features: u32) -> u32 {
    return row / TILE * features * TILE + row % TILE;
}
