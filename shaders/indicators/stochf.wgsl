import package::lib::bar::{Bar, difference};
import super::{highs, lows, percents};
import super::parameters::share;

// %K, %D.
fn step(bar: Bar) -> vec2<f32> {
    let highest = highs::push(bar.high);
    let lowest = lows::push(bar.low);
    let range = difference(highest, lowest);
    let percent = select(0.0, 100.0 * (difference(bar.close, lowest) / range), range > 0.0);
    percents::push(percent, bar);
    return vec2<f32>(percent, percents::sum() * share);
}
