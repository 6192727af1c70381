// Stationary features computed from candles and indicators. One invocation per bar and instrument.

import package::constants::{ROW, WG};
import package::sections::{
    GAP, PRICE, VOLUME, MOVE_1, MOVE_5, MOVE_20, RANGE, ABOVE_LOW, RSI, MACD, MACD_HIST, BB_UPPER, BB_MIDDLE, BB_LOWER, ATR, MOM, STOCH_K, STOCH_D, SECTIONS, FEATURES
};

struct Features {
    bars: u32,
    instruments: u32,
    // Number of the caller's features, which are copied behind the built-in ones.
    extra: u32,
    // Distance between two rows of a section, in values.
    stride: u32,
    // 1: rows hold the instrument's real bars only; the section after the caller's holds, per bar, the number of filled bars so far.
    filled: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Features;
// [section][instrument][bar]: sections in the order of package::sections, then the caller's features.
@group(0) @binding(1) var<storage, read> sources: array<f32>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

fn source(section: u32, instrument: u32, bar: u32) -> f32 {
    return sources[(section * p.instruments + instrument) * p.stride + bar];
}

fn past_return(section: u32, instrument: u32, bar: u32, back: u32) -> f32 {
    if (bar < back) {
        return 0.0;
    }
    return source(section, instrument, bar) / source(PRICE, instrument, bar - back);
}

fn share(part: f32, whole: f32) -> f32 {
    return select(0.5, part / whole, whole > 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let here = id.y * ROW + id.x;
    let i = id.z;
    if (here >= p.bars) {
        return;
    }
    let at = (here * p.instruments + i) * (FEATURES + p.extra);
    // Position of the last real bar among the real bars. Before the first one, where no feature is used, it is that one.
    var bar = here;
    if (p.filled == 1u) {
        bar -= min(here, u32(source(SECTIONS + p.extra, i, here)));
    }
    let price = source(PRICE, i, bar);
    let range = source(RANGE, i, bar);
    var gap = 0.0;
    if (bar > 0u) {
        gap = source(GAP, i, bar) / source(PRICE, i, bar - 1u);
    }
    let lower = source(BB_LOWER, i, bar);
    let width = source(BB_UPPER, i, bar) - lower;
    let window = min(bar + 1u, 20u);
    var volume = 0.0;
    for (var back = 0u; back < window; back++) {
        volume += source(VOLUME, i, bar - back);
    }
    volume /= f32(window);

    data[at] = past_return(MOVE_1, i, bar, 1u);
    data[at + 1u] = past_return(MOVE_5, i, bar, 5u);
    data[at + 2u] = past_return(MOVE_20, i, bar, 20u);
    data[at + 3u] = gap;
    data[at + 4u] = range / price;
    data[at + 5u] = share(source(ABOVE_LOW, i, bar), range) - 0.5;
    data[at + 6u] = source(RSI, i, bar) / 100.0 - 0.5;
    data[at + 7u] = source(MACD, i, bar) / price;
    data[at + 8u] = source(MACD_HIST, i, bar) / price;
    data[at + 9u] = share(-lower, width) - 0.5;
    data[at + 10u] = width / (price + source(BB_MIDDLE, i, bar));
    data[at + 11u] = source(ATR, i, bar) / price;
    data[at + 12u] = source(MOM, i, bar) / price;
    data[at + 13u] = source(STOCH_K, i, bar) / 100.0 - 0.5;
    data[at + 14u] = source(STOCH_D, i, bar) / 100.0 - 0.5;
    data[at + 15u] = select(0.0, source(VOLUME, i, bar) / volume - 1.0, volume > 0.0);
    for (var e = 0u; e < p.extra; e++) {
        data[at + FEATURES + e] = source(SECTIONS + e, i, here);
    }
}
