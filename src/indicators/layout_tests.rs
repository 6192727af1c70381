//! Layouts of the structures that Rust writes and kernels read, and that one kernel writes for another.

crate::layout_testing::same_layout! {
    group::Walk {
        rows, series, stride, bars, begin, chunks, length, halo, by_series, entry, resume, width,
        zero, four, pad,
    } = "Walk" in "indicators/panel";
    obv_sums::Parameters { rows, series, stride, chunks, length, zero, pad } = "Parameters" in "indicators/obv_sums";
}

#[test]
fn chunks_of_obv_start_from_the_layout_that_the_panel_restores() {
    let counters = [("closes", 0), ("candles", 4), ("trades", 8), ("before", 12), ("before_rest", 16)];
    for kernel in ["indicators/obv in parts", "indicators/obv_starts"] {
        crate::layout_testing::compare_layout(kernel, "Counters", 20, &counters);
        crate::layout_testing::compare_layout(kernel, "State", 8, &[("total", 0), ("error", 4)]);
    }
}
