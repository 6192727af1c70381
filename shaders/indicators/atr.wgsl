import package::lib::bar::{Bar, true_range};
import super::range;

fn step(bar: Bar) -> f32 {
    return range::follow(true_range(bar), bar.candles - 1.0);
}
