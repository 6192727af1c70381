import package::lib::bar::{Bar, difference};
import super::{highs, lows};

// The outputs as prices.
var<private> prices: vec3<f32>;

// Upper, middle, lower.
fn step(bar: Bar) -> vec3<f32> {
    let highest = highs::push(bar.high);
    let lowest = lows::push(bar.low);
    let edges = vec2<f32>(highest.x + highest.y, lowest.x + lowest.y);
    prices = vec3<f32>(edges.x, 0.5 * (edges.x + edges.y), edges.y);
    let upper = difference(highest, bar.close);
    let lower = difference(lowest, bar.close);
    return vec3<f32>(upper, 0.5 * (upper + lower), lower);
}
