//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    features::Parameters { bars, instruments, extra, stride, filled, pad } = "Features" in "market/features";
    scale::Parameters { bars, columns, first, end, fit, limit, zero, marked } = "Scale" in "market/scale";
}
