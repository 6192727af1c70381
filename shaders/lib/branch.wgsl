// An action may consist of several choices, each with logits of its own, one after the other. A mask has a bit for every
// logit that begins a choice.

// End of the choice that begins at logit `first`, of `all` logits.
fn end_of(starts: u32, first: u32, all: u32) -> u32 {
    let later = starts & ~((2u << first) - 1u);
    return select(all, firstTrailingBit(later), later != 0u);
}

// The option, of `size`, that an action took in one choice, if the choices before it have `before` combinations.
fn choice_of(action: vec4<u32>, before: u32, size: u32) -> vec4<u32> {
    return action / vec4<u32>(before) % vec4<u32>(size);
}
