import package::lib::bar::Bar;
import super::closes;
import super::parameters::share;

fn step(bar: Bar) -> f32 {
    closes::push_close(bar);
    return closes::weighted() * share;
}
