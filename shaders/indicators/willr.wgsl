import package::lib::bar::{Bar, difference};
import super::{highs, lows};

fn step(bar: Bar) -> f32 {
    let highest = highs::push(bar.high);
    let range = difference(highest, lows::push(bar.low));
    return select(0.0, -100.0 * (difference(highest, bar.close) / range), range > 0.0);
}
