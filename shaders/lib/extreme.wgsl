// Template: the greatest (HIGHEST) or least of the last N prices, for windows small enough for registers.
//
// best(j), the extreme of the last j prices, follows from best(j / 2) of this bar and of j / 2 bars ago. So a bar costs log2(N)
// comparisons, and the delayed values of all levels take N - 1 places: level j has its own from place j - 1 on, the oldest first.
//
// Every use is a module of its own, completed with N and HIGHEST.

import package::lib::bar::difference;

const LAST: u32 = max(N, 2u) - 2u;

// The state between two dispatches, which a kernel keeps in a buffer.
struct State {
    values: array<f32, LAST + 1u>,
    rests: array<f32, LAST + 1u>,
}

// Outside of the structure: FXC assigns to no element of an array inside one.
var<private> values: array<f32, LAST + 1u>;
var<private> rests: array<f32, LAST + 1u>;

fn better(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return select(b, a, (difference(a, b) > 0.0) == HIGHEST);
}

fn stored(i: u32) -> vec2<f32> {
    return vec2<f32>(values[min(i, LAST)], rests[min(i, LAST)]);
}

fn keep(i: u32, price: vec2<f32>) {
    values[min(i, LAST)] = price.x;
    rests[min(i, LAST)] = price.y;
}

// Appends a price and returns the extreme of the last N.
fn push(price: vec2<f32>) -> vec2<f32> {
    let two = better(price, stored(0u));
    let four = better(two, stored(1u));
    let eight = better(four, stored(3u));
    let sixteen = better(eight, stored(7u));
    let all = better(sixteen, stored(15u));
    // The front of a level moves to the end of the one before, where it is replaced.
    for (var i = 0u; i < LAST; i++) {
        values[i] = values[i + 1u];
        rests[i] = rests[i + 1u];
    }
    keep(0u, price);
    if (N > 2u) {
        keep(2u, two);
    }
    if (N > 4u) {
        keep(6u, four);
    }
    if (N > 8u) {
        keep(14u, eight);
    }
    if (N > 16u) {
        keep(30u, sixteen);
    }
    if (N == 1u) {
        return price;
    }
    if (N == 2u) {
        return two;
    }
    if (N <= 4u) {
        return four;
    }
    if (N <= 8u) {
        return eight;
    }
    if (N <= 16u) {
        return sixteen;
    }
    return all;
}
