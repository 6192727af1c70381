import package::lib::bar::{Bar, difference};
import package::lib::numeric::{log_ratio, nan};
import super::closes;

fn step(bar: Bar) -> f32 {
    let before = closes::push(bar);
    if (bar.close.x > 0.0 && before.x > 0.0) {
        return log_ratio(bar.close.x, before.x, difference(bar.close, before));
    }
    return nan();
}
