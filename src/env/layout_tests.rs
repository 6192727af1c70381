//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    communication::Parameters { reference, words } = "Parameters" in "env/communication";
    market::Parameters {
        features, first, last, prices, commission, commission_per_unit, min_commission, max_leverage, borrow_rate,
        cash_rate, margin_rate, accrues, years, funding, bankruptcy, own_weight, reward_scale,
        drawdown_penalty, mask, zero, lowest, highest, pad, levels,
    } = "Parameters" in "env/market";
    spread::Parameters { paper } = "Parameters" in "env/spread";
    functions::Step {
        step, end, steps, envs, reset, seed_low, seed_high, state_dim, first_state, agents, limit, last_cut,
    } = "PhalanxStep" in "env/spread";
}
