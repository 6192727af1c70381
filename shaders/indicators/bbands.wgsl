import package::lib::bar::Bar;
import super::closes;
import super::parameters::{deviations_up, deviations_down};

// Upper, middle, lower.
fn step(bar: Bar) -> vec3<f32> {
    closes::push_close(bar);
    let moments = closes::moments();
    let deviation = sqrt(moments.y);
    return moments.x + deviation * vec3<f32>(deviations_up, 0.0, -deviations_down);
}
