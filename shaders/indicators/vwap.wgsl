import package::lib::bar::{Bar, typical};
import package::lib::numeric::{is_nan, nan};
import super::{prices, volumes};

// Dollar volume of bar i of the windows, relative to the current close.
fn dollar_volume(i: u32) -> f32 {
    let j = min(i, volumes::N - 1u);
    return select(0.0, prices::value(j) * volumes::value(j), i < volumes::N);
}

fn step(bar: Bar) -> f32 {
    let missing = is_nan(bar.volume) || is_nan(bar.close.x) || is_nan(typical(bar));
    prices::push(select(typical(bar), nan(), missing), bar);
    volumes::push(select(bar.volume, nan(), missing), bar);
    var traded = 0.0;
    // Unrolled by eight, see lib/ring.
    for (var i = 0u; i < volumes::N; i += 8u) {
        traded += dollar_volume(i) + dollar_volume(i + 1u) + dollar_volume(i + 2u) + dollar_volume(i + 3u);
        traded += dollar_volume(i + 4u) + dollar_volume(i + 5u) + dollar_volume(i + 6u) + dollar_volume(i + 7u);
    }
    let volume = volumes::sum();
    return select(nan(), traded / volume, volume > 0.0);
}
