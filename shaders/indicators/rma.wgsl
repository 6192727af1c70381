import package::lib::bar::Bar;
import super::average;

fn step(bar: Bar) -> f32 {
    return average::follow_from(0.0, bar.change, bar.closes);
}
