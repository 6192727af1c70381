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
    /// Indices into the buffer of scalars of the PPO kernels. A group consists of the agents that share networks: all of them, or
    /// one each.
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
        /// Factor of the linear decay on the learning rates.
        RATE_SHARE = 15,
        /// Distance from the statistics of one group to those of the next, if every agent has networks of its own: the indices of
        /// ValueNorm, of advantages and of returns are relative. Other scalars are in the first group.
        GROUP = 16,
    }
}

constants! {
    /// Numbers of the networks' layouts.
    network: u32 {
        /// Most linear layers of a network: four hidden ones, two of a GRU, and the head.
        MAX_LAYERS = 7,
        /// Input of the first layer: the agent's own observation.
        OWN = 0,
        /// Input of the first layer: the observations of all agents, one after the other.
        ALL = 1,
        /// Input of the first layer: the global state.
        STATE = 2,
        /// Kind of a layer: a linear layer.
        ORDINARY = 0,
        /// Kind of a layer: a GRU's matrix of the input, with candidate, reset and update gate.
        GATES_OF_INPUT = 1,
        /// Kind of a layer: a GRU's matrix of the state, with reset gate, update gate, candidate.
        GATES_OF_STATE = 2,
        /// Kind of a layer: the head after a GRU.
        AFTER_CELL = 3,
        /// Phase of a pass with a GRU: all layers, walking through the slots.
        WHOLE = 0,
        /// Phase of a pass with a GRU: the layers up to the gates of the input, of all slots at once.
        BEFORE_CELL = 1,
        /// Phase of a pass with a GRU: the gates of the state and the cell, walking through the slots.
        RECURRENCE = 2,
        /// Phase of a pass with a GRU: the head, of all slots at once.
        HEAD = 3,
    }
}

constants! {
    /// Tiles of the weight gradients.
    weight_tile: u32 {
        /// Kind of a tile: the left factor is the stack's input, not activations.
        OBSERVED = 1,
        /// Kind of a tile: a bias alone.
        BIAS = 2,
        /// No LayerNorm, or no bias.
        NONE = 0xffffffff,
    }
}

constants! {
    /// The optimizer.
    optimizer: u32 {
        /// f32s of optimizer state per network.
        STATE = 8,
    }
}

constants! {
    /// Row tiles of the sum of the gradients.
    row_tile: u32 {
        /// Most rows of a tile.
        MOST_ROWS = 64,
        /// No LayerNorm.
        NONE = 0xffffffff,
    }
}

constants! {
    /// Sections of the sources of the market's features.
    sections: usize {
        /// Open minus the previous close.
        GAP = 0,
        /// Close.
        PRICE = 1,
        /// Volume.
        VOLUME = 2,
        /// Close minus the previous close.
        MOVE_1 = 3,
        /// Close minus the close 5 bars earlier.
        MOVE_5 = 4,
        /// Close minus the close 20 bars earlier.
        MOVE_20 = 5,
        /// High minus low.
        RANGE = 6,
        /// Close minus low.
        ABOVE_LOW = 7,
        /// Relative strength index.
        RSI = 8,
        /// MACD line.
        MACD = 9,
        /// MACD histogram.
        MACD_HIST = 10,
        /// Upper Bollinger band minus the close.
        BB_UPPER = 11,
        /// Middle Bollinger band minus the close.
        BB_MIDDLE = 12,
        /// Lower Bollinger band minus the close.
        BB_LOWER = 13,
        /// Average true range.
        ATR = 14,
        /// Momentum.
        MOM = 15,
        /// Stochastic oscillator, %K.
        STOCH_K = 16,
        /// Stochastic oscillator, %D.
        STOCH_D = 17,
        /// Number of sections before the caller's.
        SECTIONS = 18,
        /// Number of built-in features.
        FEATURES = 16,
    }
}
