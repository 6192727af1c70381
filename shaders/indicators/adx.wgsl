import package::lib::bar::{Bar, difference, true_range};
import package::lib::numeric::nan;
import super::average;
import super::parameters::{count, first_average};

struct State {
    // Wilder's smoothed sums of +DM, -DM and true range.
    plus: f32,
    minus: f32,
    range: f32,
    // High and low of the previous bar, each a price as in lib/bar.
    high: f32,
    high_rest: f32,
    low: f32,
    low_rest: f32,
}

var<private> state: State;

// ADX, +DI, -DI.
fn step(bar: Bar) -> vec3<f32> {
    let changes = bar.candles - 1.0;
    let up = difference(bar.high, vec2<f32>(state.high, state.high_rest));
    let down = difference(vec2<f32>(state.low, state.low_rest), bar.low);
    state.high = bar.high.x;
    state.high_rest = bar.high.y;
    state.low = bar.low.x;
    state.low_rest = bar.low.y;
    if (changes < 1.0) {
        state.plus = 0.0;
        state.minus = 0.0;
        state.range = 0.0;
        return vec3<f32>(0.0);
    }
    // The first count - 1 values are summed, later ones decay the sum by 1 / count.
    let keep = select(1.0 - 1.0 / count, 1.0, changes < count);
    state.plus = keep * state.plus + select(0.0, up, up > 0.0 && up > down);
    state.minus = keep * state.minus + select(0.0, down, down > 0.0 && down > up);
    state.range = keep * state.range + true_range(bar);
    let moving = state.range > 0.0;
    let plus = select(0.0, 100.0 * (state.plus / state.range), moving);
    let minus = select(0.0, 100.0 * (state.minus / state.range), moving);
    let total = plus + minus;
    let seen = changes - count + 1.0;
    // DX is undefined without movement: it counts as 0 during the initial mean and as the current ADX afterwards.
    let still = select(average::state.value, 0.0, seen <= count);
    let direction = select(still, 100.0 * (abs(plus - minus) / total), total > 1e-14);
    let smoothed = average::follow(direction, seen);
    return vec3<f32>(select(nan(), smoothed, bar.candles > first_average), plus, minus);
}
