import package::lib::bar::Bar;
import super::closes;

fn step(bar: Bar) -> f32 {
    closes::push_close(bar);
    let moments = closes::moments();
    return select(0.0, -moments.x / sqrt(moments.y), moments.y > 0.0);
}
