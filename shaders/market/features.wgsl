// Stationary features computed from candles and indicators. One invocation per bar and instrument.

import package::constants::{ROW, WG};

struct Features {
    bars: u32,
    instruments: u32,
    // Number of the caller's features, which are copied behind the built-in ones.
    extra: u32,
    // Distance between two rows of a section, in values.
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Features;
// [section][instrument][bar]: sections in the order of the constants below, then the caller's features.
@group(0) @binding(1) var<storage, read> sources: array<f32>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

// Open minus the previous close.
const GAP: u32 = 0u;
// Close.
const PRICE: u32 = 1u;
const VOLUME: u32 = 2u;
// Close minus the close 1, 5 and 20 bars earlier; high minus low; close minus low.
const MOVE_1: u32 = 3u;
const MOVE_5: u32 = 4u;
const MOVE_20: u32 = 5u;
const RANGE: u32 = 6u;
const ABOVE_LOW: u32 = 7u;
const RSI: u32 = 8u;
const MACD: u32 = 9u;
const MACD_HIST: u32 = 10u;
// Bollinger bands minus the close.
const BB_UPPER: u32 = 11u;
const BB_MIDDLE: u32 = 12u;
const BB_LOWER: u32 = 13u;
const ATR: u32 = 14u;
const MOM: u32 = 15u;
const STOCH_K: u32 = 16u;
const STOCH_D: u32 = 17u;
const SECTIONS: u32 = 18u;
// Number of built-in features.
const OWN: u32 = 16u;

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
    let bar = id.y * ROW + id.x;
    let i = id.z;
    if (bar >= p.bars) {
        return;
    }
    let at = (bar * p.instruments + i) * (OWN + p.extra);
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
        data[at + OWN + e] = source(SECTIONS + e, i, bar);
    }
}
