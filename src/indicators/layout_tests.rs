//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    group::Walk {
        rows, series, stride, bars, begin, chunks, length, halo, by_series, entry, resume, width,
        zero, four, pad,
    } = "Walk" in "indicators/panel";
    obv_sums::Parameters { rows, series, stride, chunks, length, zero, pad } = "Sums" in "indicators/obv_sums";
}
