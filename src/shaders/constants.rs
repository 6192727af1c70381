//! Numbers that Rust and WGSL share, each written once: a Rust constant and a constant of the WGSL module `package::<name>`.

macro_rules! constants {
    (
        $(#[$attribute:meta])*
        $name:ident: $type:ty {
            $($(#[$doc:meta])* $constant:ident = $value:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[allow(dead_code, reason = "the shaders alone read some of them")]
        pub mod $name {
            $($(#[$doc])* pub const $constant: $type = $value;)+

            /// Source of the WGSL module.
            pub(crate) const WGSL: &str =
                concat!($("const ", stringify!($constant), ": u32 = ", stringify!($value), ";\n"),+);
        }
    };
}

constants! {
    /// Indices into the buffer of scalars of the PPO kernels.
    scalars: usize {
        /// Running mean of the returns (ValueNorm), biased towards 0.
        VALUE_NORM_MEAN = 0,
        /// Running mean of the squared returns, biased towards 0.
        VALUE_NORM_SQUARE = 1,
        /// Divisor that removes this bias.
        VALUE_NORM_DEBIAS = 2,
        /// Mean that values are scaled with.
        MEAN = 3,
        /// Standard deviation that values are scaled with.
        DEVIATION = 4,
        /// Mean of the advantages.
        ADVANTAGE_MEAN = 5,
        /// 1 / (standard deviation of the advantages + 1e-5).
        ADVANTAGE_SCALE = 6,
        /// Mean of the returns.
        RETURN_MEAN = 7,
        /// Mean of the squared returns.
        RETURN_SQUARE = 8,
        /// Factor on the gradients at the heads.
        LOSS_SCALE = 9,
        /// Optimizer steps with finite gradients since the factor changed.
        GOOD_STEPS = 10,
        /// Entropy coefficient.
        ENTROPY = 11,
        /// 1: no more updates on this rollout.
        STOPPED = 12,
        /// Epochs of this rollout that updated the weights.
        EPOCHS = 13,
        /// 1 / rows of active agents in the rollout.
        ROW_SHARE = 14,
        /// From here on, for every minibatch and agent: 1 / rows that count for its networks.
        AGENTS = 16,
    }
}
