import package::lib::bar::{Bar, typical};
import package::lib::numeric::{is_nan, nan};
import super::{prices, volumes};

// Money that changed hands in the bar in place i of the windows, less what it would have been at the current close.
fn money(i: u32) -> f32 {
    let j = min(i, volumes::N - 1u);
    return select(0.0, prices::value(j) * volumes::value(j), i < volumes::N);
}

fn step(bar: Bar) -> f32 {
    let missing = is_nan(bar.volume) || is_nan(bar.change) || is_nan(typical(bar));
    prices::push(select(typical(bar), nan(), missing), bar.change);
    volumes::push(select(bar.volume, nan(), missing), 0.0);
    var traded = 0.0;
    // Unrolled by eight, see lib/ring.
    for (var i = 0u; i < volumes::N; i += 8u) {
        traded += money(i) + money(i + 1u) + money(i + 2u) + money(i + 3u);
        traded += money(i + 4u) + money(i + 5u) + money(i + 6u) + money(i + 7u);
    }
    let volume = volumes::sum();
    return select(nan(), traded / volume, volume > 0.0);
}
