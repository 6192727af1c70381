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
@group(0) @binding(1) var<storage, read> sources: array<f32>;
@group(0) @binding(2) var<storage, read> base: array<f32>;
@group(0) @binding(3) var<storage, read_write> data: array<f32>;

const OPEN: u32 = 0u;
const HIGH: u32 = 1u;
const LOW: u32 = 2u;
const CLOSE: u32 = 3u;
const VOLUME: u32 = 4u;
const RSI: u32 = 5u;
const MACD: u32 = 6u;
const MACD_HIST: u32 = 7u;
const UPPER: u32 = 8u;
const MIDDLE: u32 = 9u;
const LOWER: u32 = 10u;
const ATR: u32 = 11u;
const MOM: u32 = 12u;
const STOCH_K: u32 = 13u;
const STOCH_D: u32 = 14u;
const SECTIONS: u32 = 15u;
const OWN: u32 = 16u;

fn source(section: u32, instrument: u32, bar: u32) -> f32 {
    return sources[(section * p.instruments + instrument) * p.bars + bar];
}

// Return over `back` bars, from a difference of relative prices.
fn past_return(instrument: u32, bar: u32, back: u32) -> f32 {
    if (bar < back) {
        return 0.0;
    }
    let old = source(CLOSE, instrument, bar - back);
    return (source(CLOSE, instrument, bar) - old) / (base[instrument] + old);
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
    let close = source(CLOSE, i, bar);
    let high = source(HIGH, i, bar);
    let low = source(LOW, i, bar);
    let price = base[i] + close;
    var gap = 0.0;
    if (bar > 0u) {
        let old = source(CLOSE, i, bar - 1u);
        gap = (source(OPEN, i, bar) - old) / (base[i] + old);
    }
    let upper = source(UPPER, i, bar);
    let lower = source(LOWER, i, bar);
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
    data[at + 4u] = (high - low) / price;
    data[at + 5u] = share(close - low, high - low) - 0.5;
    data[at + 6u] = source(RSI, i, bar) / 100.0 - 0.5;
    data[at + 7u] = source(MACD, i, bar) / price;
    data[at + 8u] = source(MACD_HIST, i, bar) / price;
    data[at + 9u] = share(close - lower, upper - lower) - 0.5;
    data[at + 10u] = (upper - lower) / (base[i] + source(MIDDLE, i, bar));
    data[at + 11u] = source(ATR, i, bar) / price;
    data[at + 12u] = source(MOM, i, bar) / price;
    data[at + 13u] = source(STOCH_K, i, bar) / 100.0 - 0.5;
    data[at + 14u] = source(STOCH_D, i, bar) / 100.0 - 0.5;
    data[at + 15u] = select(0.0, source(VOLUME, i, bar) / volume - 1.0, volume > 0.0);
    for (var e = 0u; e < p.extra; e++) {
        data[at + OWN + e] = source(SECTIONS + e, i, bar);
    }
}
