//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    random_timing::Parameters {
        decisions, instruments, draws, first, end, commission, commission_per_unit, min_commission, max_leverage, borrow_rate,
        cash_rate, margin_rate, accrues, funded, bankruptcy, zero,
    } = "Timing" in "research/random_timing";
}
