// Stationary features from candles and indicators: one invocation per bar and instrument.

import package::constants::{ROW, WG};

struct Features {
    bars: u32,
    instruments: u32,
    // Features computed here, and columns of the caller copied behind them.
    extra: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: Features;
// Sections of [instrument][bar]: open, high, low, close (relative to the base), volume, the indicators in the order of
// SECTIONS on the host, then the caller's columns.
// Sections of [instrument][bar], in the order of the constants, then the caller's columns.
@group(0) @binding(1) var<storage, read> sources: array<f32>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

// Open less the close before.
const GAP: u32 = 0u;
// Close.
const PRICE: u32 = 1u;
const VOLUME: u32 = 2u;
// Relative prices, each with what its rounding left out.
const HIGH: u32 = 3u;
const LOW: u32 = 5u;
const CLOSE: u32 = 7u;
const RSI: u32 = 9u;
const MACD: u32 = 10u;
const MACD_HIST: u32 = 11u;
// Bollinger: middle less close, and half the distance of the bands.
const BB_OFFSET: u32 = 12u;
const BB_WIDTH: u32 = 13u;
const ATR: u32 = 14u;
const MOM: u32 = 15u;
const STOCH_K: u32 = 16u;
const STOCH_D: u32 = 17u;
const SECTIONS: u32 = 18u;
const OWN: u32 = 16u;

fn source(section: u32, instrument: u32, bar: u32) -> f32 {
    return sources[(section * p.instruments + instrument) * p.bars + bar];
}

// Difference of two relative prices, right wherever the price level is.
fn difference(section: u32, bar: u32, other_section: u32, other_bar: u32, i: u32) -> f32 {
    let heads = source(section, i, bar) - source(other_section, i, other_bar);
    return heads + (source(section + 1u, i, bar) - source(other_section + 1u, i, other_bar));
}

fn past_return(instrument: u32, bar: u32, back: u32) -> f32 {
    if (bar < back) {
        return 0.0;
    }
    return difference(CLOSE, bar, CLOSE, bar - back, instrument) / source(PRICE, instrument, bar - back);
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
    let range = difference(HIGH, bar, LOW, bar, i);
    var gap = 0.0;
    if (bar > 0u) {
        gap = source(GAP, i, bar) / source(PRICE, i, bar - 1u);
    }
    let width = source(BB_WIDTH, i, bar);
    let offset = source(BB_OFFSET, i, bar);
    let window = min(bar + 1u, 20u);
    var volume = 0.0;
    for (var back = 0u; back < window; back++) {
        volume += source(VOLUME, i, bar - back);
    }
    volume /= f32(window);

    data[at] = past_return(i, bar, 1u);
    data[at + 1u] = past_return(i, bar, 5u);
    data[at + 2u] = past_return(i, bar, 20u);
    data[at + 3u] = gap;
    data[at + 4u] = range / price;
    data[at + 5u] = share(difference(CLOSE, bar, LOW, bar, i), range) - 0.5;
    data[at + 6u] = source(RSI, i, bar) / 100.0 - 0.5;
    data[at + 7u] = source(MACD, i, bar) / price;
    data[at + 8u] = source(MACD_HIST, i, bar) / price;
    data[at + 9u] = share(width - offset, 2.0 * width) - 0.5;
    data[at + 10u] = 2.0 * width / (price + offset);
    data[at + 11u] = source(ATR, i, bar) / price;
    data[at + 12u] = source(MOM, i, bar) / price;
    data[at + 13u] = source(STOCH_K, i, bar) / 100.0 - 0.5;
    data[at + 14u] = source(STOCH_D, i, bar) / 100.0 - 0.5;
    data[at + 15u] = select(0.0, source(VOLUME, i, bar) / volume - 1.0, volume > 0.0);
    for (var e = 0u; e < p.extra; e++) {
        data[at + OWN + e] = source(SECTIONS + e, i, bar);
    }
}
