import package::lib::bar::{Bar, typical};
import super::{up, down};

struct State {
    before: f32,
}

var<private> state: State;

fn step(bar: Bar) -> f32 {
    let price = typical(bar);
    let rise = bar.change + price - state.before;
    // A smaller rise is the rounding error of three differences.
    let rounding = 5e-7 * (abs(bar.change) + abs(price) + abs(state.before));
    let flow = (bar.close.x + price) * bar.volume;
    state.before = price;
    up::push(select(0.0, flow, rise > rounding), bar);
    down::push(select(0.0, flow, rise < -rounding), bar);
    let rising = up::sum();
    let total = rising + down::sum();
    return select(0.0, clamp(100.0 * (rising / total), 0.0, 100.0), total > 0.0);
}
