import package::lib::bar::{Bar, difference};
import super::closes;

fn step(bar: Bar) -> f32 {
    return difference(bar.close, closes::push(bar));
}
