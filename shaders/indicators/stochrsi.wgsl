import package::lib::bar::Bar;
import super::{gain, loss, highest, lowest, percents};
import super::parameters::share;

// %K, %D.
fn step(bar: Bar) -> vec2<f32> {
    let changes = bar.closes - 1.0;
    let up = gain::follow(max(bar.change, 0.0), changes);
    let down = loss::follow(max(-bar.change, 0.0), changes);
    let total = up + down;
    let rsi = select(50.0, min(100.0 * (up / total), 100.0), total > 0.0);
    let least = lowest::push(vec2<f32>(rsi, 0.0)).x;
    let range = highest::push(vec2<f32>(rsi, 0.0)).x - least;
    let percent = select(0.0, 100.0 * ((rsi - least) / range), range > 0.0);
    percents::push(percent, bar);
    return vec2<f32>(percent, percents::sum() * share);
}
