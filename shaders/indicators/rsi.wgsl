import package::lib::bar::Bar;
import super::{gain, loss};

fn step(bar: Bar) -> f32 {
    let changes = bar.closes - 1.0;
    let up = gain::follow(max(bar.change, 0.0), changes);
    let down = loss::follow(max(-bar.change, 0.0), changes);
    let total = up + down;
    // Rounding can make the quotient greater than 1.
    return select(50.0, min(100.0 * (up / total), 100.0), total > 0.0);
}
