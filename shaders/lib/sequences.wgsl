// The sequences of a GRU: the quads of rows of a slot, for every chunk of slots.

import package::lib::slots::batch;

fn sequences() -> u32 {
    let per_slot = batch.agents * batch.quads;
    return (batch.rows / per_slot + batch.recurrent.length - 1u) / batch.recurrent.length * per_slot;
}

struct InTime {
    row: u32,
    exists: bool,
}

// The row of sequence `index` in the `t`-th slot of its chunk. In a shorter last chunk the last slot is repeated, and past the last
// sequence a sequence of the last chunk is.
fn row_in_time(index: u32, t: u32) -> InTime {
    let count = sequences();
    let per_slot = batch.agents * batch.quads;
    let row = (min(index, count - 1u) / per_slot * batch.recurrent.length + t) * per_slot + index % per_slot;
    let last = batch.rows - per_slot + index % per_slot;
    return InTime(select(last, row, row < batch.rows), row < batch.rows && index < count);
}
