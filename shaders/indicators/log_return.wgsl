import package::lib::bar::Bar;
import package::lib::numeric::{log1p, nan};
import super::closes;

fn step(bar: Bar) -> f32 {
    closes::push(0.0, bar.change);
    let before = bar.price + closes::oldest();
    if (bar.price > 0.0 && before > 0.0) {
        return log1p(-closes::oldest() / before);
    }
    return nan();
}
