import package::lib::bar::Bar;
import super::{highs, lows};

// Upper, middle, lower.
fn step(bar: Bar) -> vec3<f32> {
    highs::push(bar.above, bar.change);
    lows::push(-bar.below, bar.change);
    let upper = highs::highest();
    let lower = lows::lowest();
    return vec3<f32>(upper, 0.5 * (upper + lower), lower);
}
