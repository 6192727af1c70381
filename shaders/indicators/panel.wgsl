// Iterates over the bars of series and passes each bar to the indicators: one invocation processes one chunk of one row.
//
// src/indicators/compose.rs generates the indicators' module, `package::uses`. Lengths and positions along time are in
// units of four bars.

import package::constants::{ROW, WG};
import package::lib::bar::{Bar, difference, edge};
import package::lib::numeric::is_nan;
import package::memory::{lane, lanes, zero};
@if(parameter_table) import package::uses::load;
@if(keep) import package::uses::{restore, save};
@if(live) import package::uses::store_one;
@if(!live) import package::uses::{put, store};
import package::uses::step;

struct Walk {
    // Number of output rows: one per series and parameter set.
    rows: u32,
    series: u32,
    // Length of a series in memory, and its number of bars.
    stride: u32,
    bars: u32,
    // Start of the first chunk, number of chunks per row, and length of a chunk.
    begin: u32,
    chunks: u32,
    length: u32,
    // Warm-up: a chunk starts this much earlier, so that its values no longer depend on the missing past.
    halo: u32,
    // 1: one parameter set per series; 0: one per block of `series` rows.
    by_series: u32,
    // Words per entry of the parameter table.
    entry: u32,
    // 1: continue from the state of the last dispatch.
    resume: u32,
    // Width of the textures in texels.
    width: u32,
    // Always 0, but unknown to the compiler.
    zero: u32,
    // Always 4, but unknown to the compiler, which therefore cannot unroll the loop.
    four: u32,
    pad0: u32,
    pad1: u32,
}

struct Counters {
    closes: f32,
    candles: f32,
    trades: f32,
    // The close before, a price as in lib/bar.
    before: f32,
    before_rest: f32,
}

@group(0) @binding(0) var<uniform> p: Walk;
@if(textures) @group(0) @binding(1) var candles: texture_2d<f32>;
@if(!textures) @group(0) @binding(1) var<storage, read> candles: array<vec4<f32>>;
@if(textures && volume) @group(0) @binding(2) var volumes: texture_2d<f32>;
@if(!textures && volume) @group(0) @binding(2) var<storage, read> volumes: array<f32>;
@if(keep) @group(0) @binding(4) var<storage, read_write> counted: array<Counters>;

var<private> seen: Counters;

// The close, its rounding error, and the codes of high and low, see lib/bar.
@if(textures)
fn candle(at: u32) -> vec4<f32> {
    return textureLoad(candles, vec2<u32>(at % p.width, at / p.width), 0);
}

@if(!textures)
fn candle(at: u32) -> vec4<f32> {
    return candles[at];
}

@if(textures && volume)
fn volume(at: u32) -> f32 {
    return textureLoad(volumes, vec2<u32>(at % p.width, at / p.width), 0).x;
}

@if(!textures && volume)
fn volume(at: u32) -> f32 {
    return volumes[at];
}

@if(!volume)
fn volume(at: u32) -> f32 {
    return 0.0;
}

fn bar(at: u32) -> Bar {
    let c = candle(at);
    let v = volume(at);
    let before = vec2<f32>(seen.before, seen.before_rest);
    seen.closes = select(seen.closes + 1.0, 0.0, is_nan(c.x));
    seen.candles = select(seen.candles + 1.0, 0.0, is_nan(c.x) || is_nan(c.z) || is_nan(c.w));
    seen.trades = select(seen.trades + 1.0, 0.0, is_nan(v) || seen.candles == 0.0);
    seen.before = c.x;
    seen.before_rest = c.y;
    var bar: Bar;
    bar.close = c.xy;
    bar.change = difference(c.xy, before);
    bar.before = before.x;
    let high = edge(c.z, c.xy);
    let low = edge(c.w, c.xy);
    bar.high = high.price;
    bar.low = low.price;
    bar.above = high.distance;
    bar.below = -low.distance;
    bar.volume = v;
    bar.closes = seen.closes;
    bar.candles = seen.candles;
    bar.trades = seen.trades;
    return bar;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    lane = id.y * ROW + id.x;
    zero = p.zero;
    lanes = p.rows * p.chunks;
    if (lane >= lanes) {
        return;
    }
    let row = lane / p.chunks;
    let series = row % p.series;
    @if(parameter_table) {
        load(select(row / p.series, series, p.by_series == 1u) * p.entry);
    }
    @if(keep) {
        if (p.resume == 1u) {
            seen = counted[lane];
            restore(lane);
        }
    }
    @if(!live) {
        let begin = p.begin + (lane % p.chunks) * p.length;
        let end = min(begin + p.length, p.stride);
        for (var four = begin - min(begin, p.halo); four < end; four++) {
            let at = (series * p.stride + four) * 4u;
            @if(!rings) {
                put(0u, step(bar(at)));
                put(1u, step(bar(at + 1u)));
                put(2u, step(bar(at + 2u)));
                put(3u, step(bar(at + 3u)));
            }
            // A loop, because compilers take long for four copies of the code for windows in memory.
            @if(rings) {
                for (var i = 0u; i < p.four; i++) {
                    put(i, step(bar(at + i)));
                }
            }
            if (four >= begin) {
                store(row * p.stride + four, (p.rows + row) * p.stride + four);
            }
        }
    }
    @if(live) {
        for (var t = 0u; t < p.bars; t++) {
            // An infinite close marks a bar that this series does not have.
            if (bitcast<u32>(candle(series * p.bars + t).x) != 0x7f800000u) {
                let values = step(bar(series * p.bars + t));
                store_one(row * p.bars + t, (p.rows + row) * p.bars + t, values);
            }
        }
    }
    @if(keep) {
        counted[lane] = seen;
        save(lane);
    }
}
