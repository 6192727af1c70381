// Sizes and settings of the scaling of features, shared by the kernels of market/scale and market/scale_stats.

struct Scaling {
    bars: u32,
    columns: u32,
    // Range of the training bars.
    first: u32,
    end: u32,
    // Largest absolute value of a scaled feature.
    limit: f32,
    // Always 0; `add_compensated` explains why it is not a constant.
    zero: u32,
    // Features per instrument if the last one marks filled bars and stays as it is; 0 if none does.
    marked: u32,
    pad: u32,
}

fn is_mark(column: u32, marked: u32) -> bool {
    return marked > 0u && (column + 1u) % max(marked, 1u) == 0u;
}

// Two numbers of 12 bits whose sum is x: products with the number of bars of a chunk are exact.
fn exact_parts(x: f32) -> vec2<f32> {
    let high = bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
    return vec2<f32>(high, x - high);
}
