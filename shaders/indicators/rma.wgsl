import package::lib::bar::Bar;
import super::average;

fn step(bar: Bar) -> f32 {
    return average::follow_close(bar, bar.closes);
}
