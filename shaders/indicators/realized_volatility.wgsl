import package::lib::bar::Bar;
import package::lib::numeric::{log_ratio, nan};
import super::returns;
import super::parameters::{count, scale};

struct State {
    // Number of consecutive valid returns.
    seen: f32,
}

var<private> state: State;

fn step(bar: Bar) -> f32 {
    let valid = bar.closes > 1.0 && bar.close.x > 0.0 && bar.before > 0.0;
    var change = nan();
    if (valid) {
        change = log_ratio(bar.close.x, bar.before, bar.change);
    }
    state.seen = select(0.0, state.seen + 1.0, valid);
    returns::push(change, bar);
    return select(nan(), sqrt(returns::moments().y) * scale, state.seen >= count);
}
