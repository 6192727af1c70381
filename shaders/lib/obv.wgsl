// On-balance volume over the chunks of a series, for the kernels before indicators/panel.

struct Sums {
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
