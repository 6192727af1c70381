import package::lib::bar::{Bar, true_range};
import super::{average, range};
import super::parameters::multiplier;

// Upper, middle, lower.
fn step(bar: Bar) -> vec3<f32> {
    let middle = average::follow_close(bar, bar.candles);
    let width = multiplier * range::follow(true_range(bar), bar.candles - 1.0);
    return vec3<f32>(middle + width, middle, middle - width);
}
