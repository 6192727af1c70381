import package::lib::bar::Bar;
import super::{fast, slow, signal};
import super::parameters::{late, first_line};

// Line, signal, histogram.
fn step(bar: Bar) -> vec3<f32> {
    // The fast average starts later, so that both initial means end at the same bar.
    let line = fast::follow_close(bar, bar.closes - late) - slow::follow_close(bar, bar.closes);
    let average = signal::follow(line, bar.closes - first_line);
    return vec3<f32>(line, average, line - average);
}
