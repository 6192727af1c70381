import package::lib::bar::Bar;
import package::lib::numeric::{log1p, nan};
import super::returns;
import super::parameters::{count, scale};

struct State {
    // Number of consecutive valid returns.
    seen: f32,
}

var<private> state: State;

fn step(bar: Bar) -> f32 {
    let before = bar.price - bar.change;
    let valid = bar.closes > 1.0 && bar.price > 0.0 && before > 0.0;
    var change = nan();
    if (valid) {
        change = log1p(bar.change / before);
    }
    state.seen = select(0.0, state.seen + 1.0, valid);
    returns::push(change, 0.0);
    return select(nan(), sqrt(returns::moments().y) * scale, state.seen >= count);
}
