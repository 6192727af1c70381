import package::lib::bar::{Bar, typical};
import super::prices;
import super::parameters::share;

fn step(bar: Bar) -> f32 {
    let price = typical(bar);
    prices::push(price, bar);
    let mean = prices::sum() * share;
    let spread = prices::spread(mean);
    // A smaller spread is the rounding error of equal prices.
    let rounding = 1e-6 * (abs(price) + abs(mean));
    return select(0.0, (price - mean) / (0.015 * spread), spread > rounding);
}
