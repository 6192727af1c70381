//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    fold::NetworkSlice {
        params, length, working, stack, biases, agent, first_tile, tiles,
    } = "NetworkSlice" in "nn/fold";
    layout::Layer {
        inputs, outputs, stride, weights, bias, gain, offset, norm, transposed, transposed_stride,
        input, product, layer_norm_stats, grad, learnt, kind, output, made_from, below, pad,
    } = "Layer" in "nn/tile/forward";
    layout::NetworkStack {
        layers, params, net_stride, working, working_stride, input_kind, agent_bias, nets, layer,
    } = "NetworkStack" in "nn/tile/forward";
    layout::Batch {
        first_slot, rows, stride, agents, quads, obs_dim, acts, grads, first_state, state_dim, order,
        starts_sum, forward, recurrent, loss,
    } = "Batch" in "nn/tile/forward";
    layout::ForwardPart { first_stack, keep, head_actor, head_critic } = "ForwardPart" in "nn/tile/forward";
    layout::RecurrentPart {
        length, chunk, steps, truncations, endings, store_states, pad,
    } = "RecurrentPart" in "nn/tile/forward";
    layout::LossPart { index, minibatch, agent_step, update_factors } = "LossPart" in "nn/tile/forward";
    matmul::Sizes { columns, inputs, pad } = "Sizes" in "nn/matmul";
    reduce::Reduce { length, partial_sums, tiles, squares } = "Reduce" in "nn/reduce";
    reduce::RowTile {
        first, stride, columns, rows, learnt, gain, offset, bias, biases,
    } = "RowTile" in "nn/reduce";
    weight_gradient::Tile {
        kind, left, right, layer_norm_stats, output, stride, inputs, outputs, first_agent, agents, input_kind,
        bias,
    } = "Tile" in "nn/tile/weight_gradient";
    weight_gradient::Split { count, stride, tiles, pad } = "Split" in "nn/tile/weight_gradient";
}
