// On-balance volume over the chunks of a series, for the kernels before indicators/panel.

struct Parameters {
    // Rows of outputs, and series, of which several rows may be the same one.
    rows: u32,
    series: u32,
    // Length of a series in memory, chunks per row, and length of a chunk, in groups of four bars.
    stride: u32,
    chunks: u32,
    length: u32,
    // Always 0, but unknown to the compiler.
    zero: u32,
    pad0: u32,
    pad1: u32,
}

// As in lib/memory, for kernels without the module.
fn rounded(x: f32, zero: u32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ zero);
}

// As in lib/bar.
fn difference(a: vec2<f32>, b: vec2<f32>, zero: u32) -> f32 {
    return rounded(a.x - b.x, zero) + (a.y - b.y);
}
