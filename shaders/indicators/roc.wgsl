import package::lib::bar::Bar;
import super::closes;

fn step(bar: Bar) -> f32 {
    closes::push(0.0, bar.change);
    let before = bar.price + closes::oldest();
    return select(0.0, -100.0 * (closes::oldest() / before), before != 0.0);
}
