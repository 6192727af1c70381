import package::lib::bar::Bar;
import super::closes;
import super::parameters::share;

fn step(bar: Bar) -> f32 {
    closes::push(0.0, bar.change);
    return closes::weighted() * share;
}
