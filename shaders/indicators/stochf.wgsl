import package::lib::bar::Bar;
import super::{highs, lows, percents};
import super::parameters::share;

// %K, %D.
fn step(bar: Bar) -> vec2<f32> {
    highs::push(bar.above, bar.change);
    lows::push(-bar.below, bar.change);
    let lowest = lows::lowest();
    let range = highs::highest() - lowest;
    let percent = select(0.0, 100.0 * (-lowest / range), range > 0.0);
    percents::push(percent, 0.0);
    return vec2<f32>(percent, percents::sum() * share);
}
