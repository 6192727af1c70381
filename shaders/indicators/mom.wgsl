import package::lib::bar::Bar;
import super::closes;

fn step(bar: Bar) -> f32 {
    closes::push(0.0, bar.change);
    return -closes::oldest();
}
