import package::lib::bar::Bar;
import package::lib::numeric::{log1p, nan};
import super::returns;
import super::parameters::scale;

fn step(bar: Bar) -> f32 {
    let before = bar.price - bar.change;
    var change = nan();
    if (bar.closes > 1.0 && bar.price > 0.0 && before > 0.0) {
        change = log1p(bar.change / before);
    }
    returns::push(change, 0.0);
    return sqrt(returns::moments().y) * scale;
}
