// What an invocation of the walk hands to all modules. Completed with the binding of the rings where there are any.

var<private> lane: u32;
var<private> lanes: u32;

// 0, which compilers cannot know.
var<private> zero: u32;

// x, rounded here and now. Compilers may regroup sums, and then find that the rounding errors of a compensated sum are
// nothing; they do not see through the exclusive or.
fn rounded(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ zero);
}

// Adds x to the pair (sum, what its f32 could not hold).
fn add_exactly(pair: vec2<f32>, x: f32) -> vec2<f32> {
    let y = x + pair.y;
    let sum = rounded(pair.x + y);
    return vec2<f32>(sum, y - rounded(sum - pair.x));
}
