//! Layouts of the structures that Rust writes and kernels read.

crate::layout_testing::same_layout! {
    features::Parameters { bars, instruments, extra, stride, filled, pad } = "Features" in "market/features";
    scale_stats::Parameters { bars, columns, first, end, limit, zero, marked, pad } = "Scaling" in "market/scale_stats";
}
