//! Technical indicators, for many instruments at once: RSI, MACD, Bollinger bands, ATR, momentum and stochastic.
//!
//! Conventions are those of TA-Lib 0.8 with an unstable period of 0: positions are 0-based and everything before an
//! indicator's first valid bar is NaN. Degenerate cases follow the `ta-lib` crate: on flat prices the RSI is 50 and
//! %K is 0. A NaN price makes those outputs NaN that have seen it, and no others: the windowed indicators recover
//! when it has left their window, the recursive ones (RSI, MACD, ATR) start anew at the bar after it. A series too
//! short for an indicator is NaN throughout.
//!
//! Precision: on daily candles of four shares over eight years every value agrees with TA-Lib's f64 within 1e-4 of
//! itself, without any allowance for values near zero. The largest difference is 1.3e-6 (lower Bollinger band), and
//! 4.4e-6 (momentum) where the same shares are made to collapse to a ten-thousandth (`tests/indicators.rs`).

pub mod atr;
pub mod bollinger;
pub mod macd;
pub mod momentum;
mod panel;
mod parameters;
#[cfg(test)]
pub(crate) mod reference;
pub mod rsi;
mod series;
pub mod stochastic;

pub use panel::{Buffers, Indicators, Panel, Values};
pub use parameters::Parameters;
pub use series::Series;

use crate::gpu::{Class, Shader, Variant};

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    vec![
        (rsi::SHADER, rsi::variant(class)),
        (macd::SHADER, macd::variant(class)),
        (bollinger::SHADER, bollinger::variant(class)),
        (atr::SHADER, atr::variant(class)),
        (momentum::SHADER, momentum::variant(class)),
        (stochastic::SHADER, stochastic::variant(class)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::compose;

    #[test]
    fn every_variant_is_valid_wgsl() {
        for class in [Class::Hardware, Class::Software] {
            for (shader, variant) in kernels(class) {
                let source = compose(&shader, &variant).unwrap();
                let module = naga::front::wgsl::parse_str(&source).unwrap();
                let flags = naga::valid::ValidationFlags::all();
                let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
                validator.validate(&module).unwrap_or_else(|error| panic!("{}: {error}", shader.name));
            }
        }
    }
}
