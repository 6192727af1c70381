import package::lib::bar::Bar;
import super::{highs, lows};

fn step(bar: Bar) -> f32 {
    highs::push(bar.above, bar.change);
    lows::push(-bar.below, bar.change);
    let highest = highs::highest();
    let range = highest - lows::lowest();
    return select(0.0, -100.0 * (highest / range), range > 0.0);
}
