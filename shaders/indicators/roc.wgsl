import package::lib::bar::{Bar, difference};
import super::closes;

fn step(bar: Bar) -> f32 {
    let before = closes::push(bar);
    return select(0.0, 100.0 * (difference(bar.close, before) / before.x), before.x != 0.0);
}
