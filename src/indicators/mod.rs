//! Technical indicators for any number of series.
//!
//! [`Indicators`] holds a selection. [`Indicators::compute`] returns its values on the CPU, [`Indicators::panel`] leaves them
//! on the device, [`Indicators::live`] updates them bar by bar, and [`Indicators::grid`] computes many parameter
//! combinations at once. The indicators of a selection share one kernel, or several if the device cannot bind enough
//! buffers, and the kernel reads each candle once.
//!
//! Conventions follow TA-Lib 0.8 with an unstable period of 0: bars are numbered from 0, and values before an
//! indicator's first valid bar are NaN. Degenerate cases follow the `ta-lib` crate: on constant prices the RSI is 50 and
//! other oscillators are 0. A missing price (NaN or infinite) affects only the values that depend on it: windowed
//! indicators recover when it leaves their window, recursive ones warm up again after it. A series too short for an
//! indicator is NaN throughout. No value depends on a later bar.
//!
//! # What is public
//!
//! The types above, one module per indicator (formula, parameters, source), [`parse`] and [`NAMES`] for configuration files
//! and command lines. [`Indicator`] is sealed, and the functions that bind kernels check sizes or are private, so that no
//! caller can make a kernel access memory outside its buffers. [`sources`] returns the composed shaders for inspection.
//!
//! # Precision
//!
//! A close on the device is a pair of f32, which together have 48 bits, so errors do not depend on the price level, nor on
//! other prices of the series:
//!
//! * Differences and extremes of prices (momentum, ROC, log return, true range, Donchian, the highs and lows of %K and %R) are
//!   exact to the f32 of the result, whatever else stands in the window: a bad tick 1000 times as high costs them no digit.
//!   Donchian's outputs that are far from the close are read as prices in f32. Log returns above 3 % have the error of WGSL's
//!   logarithm, 5e-7.
//! * An average has a rounding error of up to 6e-8 of a bad tick, which decays as the tick's weight in the average does.
//! * Sums and moments over a window (SMA, WMA, Bollinger, CCI, z-score, MFI, VWAP) that contains a bad tick have a few rounding
//!   errors of up to 6e-8 of that tick, and none once it has left the window.
//! * OBV adds the sign of a change, which is 0 if two closes differ by less than 2^-48 of the price.
//!
//! `tests/suite/indicators_ticks.rs` asserts this around random bad ticks: differences and extremes, EMA, RMA and ATR of the averages,
//! SMA and WMA of the sums, OBV, and for every indicator with a window that nothing is left of a tick behind it. The table shows the largest error against f64 (the `ta-lib` crate, or the
//! formula for indicators it lacks) over random walks of 700 bars with prices from 1e-4 to 1e6 and volatilities from 1e-5
//! to 1e-1 per bar. `tests/suite/indicators.rs` asserts 1e-4 of these units (1e-2 for the stochastic RSI).
//!
//! | indicator | error |
//! |---|---|
//! | RSI | 2e-5 points |
//! | MACD, signal, histogram | 3e-6 of their own standard deviation |
//! | Bollinger bands minus the close | 1e-6 |
//! | ATR | 4e-6 |
//! | momentum, ROC, log return | 3e-6 |
//! | %K, %D, %R | 2e-5 points |
//! | SMA, EMA, WMA, RMA, VWAP minus the close | 2e-6 |
//! | Donchian, Keltner minus the close | 2e-6 |
//! | ADX, +DI, -DI, MFI | 2e-5 points |
//! | CCI, z-score, realised volatility, OBV | 3e-6 |
//! | stochastic RSI | 5e-4 points (a quotient of small RSI differences) |
//!
//! A long series is processed in parallel chunks. Each chunk starts early enough before its first bar that older bars no
//! longer affect the f32 result (a decay below 2^-26). The chunk boundaries depend on the number of bars, so a longer
//! series may differ from a shorter one in the last bits of long recurrences. OBV remembers all bars: on GPUs the chunks of a few long
//! series are summed first, and each starts from the sum of those before it; elsewhere a series is processed in one piece.

pub mod adx;
pub mod atr;
pub mod bbands;
pub mod cci;
mod compose;
pub mod donchian;
pub mod ema;
mod grid;
mod group;
mod indicator;
pub mod keltner;
#[cfg(test)]
mod layout_tests;
mod live;
pub mod log_return;
pub mod macd;
pub mod mfi;
pub mod mom;
pub mod obv;
mod obv_starts;
mod obv_sums;
mod panel;
pub mod realized_volatility;
pub mod rma;
pub mod roc;
pub mod rsi;
mod series;
pub mod sma;
pub mod stochf;
pub mod stochrsi;
mod values;
pub mod vwap;
pub mod willr;
mod window;
pub mod wma;
pub mod zscore;

pub use adx::Adx;
pub use atr::Atr;
pub use bbands::Bbands;
pub use cci::Cci;
pub use compose::{PanelConfig, SHADER, Source};
pub use donchian::Donchian;
pub use ema::Ema;
pub use indicator::{Average, Indicator, Input, Need, Output, Spec, Unit, Value, Window};
pub use keltner::Keltner;
pub use live::Live;
pub use log_return::LogReturn;
pub use macd::Macd;
pub use mfi::Mfi;
pub use mom::Mom;
pub use obv::Obv;
pub use panel::{Indicators, Panel};
pub use realized_volatility::RealizedVolatility;
pub use rma::Rma;
pub use roc::Roc;
pub use rsi::Rsi;
pub use series::Series;
pub use sma::Sma;
pub use stochf::Stochf;
pub use stochrsi::Stochrsi;
pub use values::Values;
pub use vwap::Vwap;
pub use willr::Willr;
pub use wma::Wma;
pub use zscore::Zscore;

use crate::gpu::{Class, Shader, Variant};
use crate::{Error, Result};

/// Declares every indicator once: the name of its shader and its type.
macro_rules! registry {
    ($($name:literal => $kind:ty,)*) => {
        $(impl indicator::sealed::Sealed for $kind {})*

        /// One of each indicator with its default parameters.
        #[must_use]
        pub fn all() -> Vec<Box<dyn Indicator>> {
            vec![$(Box::<$kind>::default()),*]
        }

        /// Names of all indicators, as accepted by [`parse`].
        pub const NAMES: &[&str] = &[$($name),*];

        fn from_json(name: &str, parameters: serde_json::Value) -> serde_json::Result<Option<Box<dyn Indicator>>> {
            match name {
                $($name => Ok(Some(Box::new(serde_json::from_value::<$kind>(parameters)?))),)*
                _ => Ok(None),
            }
        }
    };
}

registry! {
    "rsi" => Rsi,
    "macd" => Macd,
    "bbands" => Bbands,
    "atr" => Atr,
    "mom" => Mom,
    "stochf" => Stochf,
    "sma" => Sma,
    "ema" => Ema,
    "wma" => Wma,
    "rma" => Rma,
    "roc" => Roc,
    "log_return" => LogReturn,
    "adx" => Adx,
    "cci" => Cci,
    "willr" => Willr,
    "obv" => Obv,
    "mfi" => Mfi,
    "vwap" => Vwap,
    "donchian" => Donchian,
    "keltner" => Keltner,
    "stochrsi" => Stochrsi,
    "zscore" => Zscore,
    "realized_volatility" => RealizedVolatility,
}

/// Parses an indicator: its name, optionally followed by parameters that differ from their defaults.
///
/// ```
/// use phalanx::indicators::parse;
///
/// for text in ["rsi", "sma:period=10", "macd:fast=8,slow=21"] {
///     parse(text)?;
/// }
/// assert!(parse("sma:periods=10").is_err());
/// # Ok::<(), phalanx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for an unknown indicator or parameter, or a value that is not a number.
pub fn parse(text: &str) -> Result<Box<dyn Indicator>> {
    let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
    let name = name.trim();
    let mut values = serde_json::Map::new();
    for parameter in parameters.split(',').filter(|parameter| !parameter.trim().is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let number: serde_json::Number = serde_json::from_str(value.trim()).map_err(|_| {
            Error::config(
                text,
                format!("could not parse parameter `{}`; write name=number", parameter.trim()),
            )
        })?;
        values.insert(key.trim().into(), number.into());
    }
    let found = from_json(name, values.into()).map_err(|error| Error::config(text, error.to_string()))?;
    found.ok_or_else(|| {
        Error::config(text, format!("unknown indicator `{name}`; choose one of {}", NAMES.join(", ")))
    })
}

/// The kernels of this module that are one file, each with every variant it is compiled in.
#[must_use]
pub(crate) fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    match class {
        Class::Hardware => vec![
            (obv_sums::SHADER, obv_sums::variant(class)),
            (obv_starts::SHADER, obv_starts::variant(class)),
        ],
        Class::Software => Vec::new(),
    }
}

/// Names and sources of all indicator kernels for a class of adapters: each indicator alone, and all together, in every
/// kernel configuration in use.
///
/// # Errors
/// [`crate::Error::Shader`] if a shader cannot be composed.
pub fn sources(class: Class) -> Result<Vec<(String, Source)>> {
    let specs = all().iter().map(|indicator| indicator.spec()).collect::<Result<Vec<_>>>()?;
    let textures = class == Class::Software;
    let batch = PanelConfig {
        class,
        textures,
        live: false,
        keep: false,
        parameter_table: false,
        f16_outputs: false,
        wide_stores: false,
        prices: true,
    };
    let live = PanelConfig { textures: false, live: true, keep: true, ..batch };
    let configs = [
        ("batch", batch),
        ("in parts", PanelConfig { keep: true, ..batch }),
        ("f16 outputs", PanelConfig { f16_outputs: true, prices: false, ..batch }),
        ("wide stores", PanelConfig { wide_stores: true, ..batch }),
        ("grid", PanelConfig { parameter_table: true, ..batch }),
        ("live", live),
        ("live grid", PanelConfig { parameter_table: true, ..live }),
    ];
    let mut all = Vec::new();
    for (name, config) in configs {
        for spec in &specs {
            all.push((
                format!("{} {name}", spec.shader.name),
                compose::compose(std::slice::from_ref(spec), config)?,
            ));
        }
        all.push((format!("{} {name}", SHADER.name), compose::compose(&specs, config)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::naga;

    #[test]
    fn indicators_are_read_from_text() {
        let same = |text: &str, indicator: &dyn Indicator| {
            assert_eq!(parse(text).unwrap().spec().unwrap(), indicator.spec().unwrap(), "{text}");
        };
        same("rsi", &Rsi::default());
        same(" sma: period = 10", &Sma { period: 10 });
        same("macd:fast=8,slow=21", &Macd { fast: 8, slow: 21, ..Macd::default() });
        same("bbands:deviations_up=2.5", &Bbands { deviations_up: 2.5, ..Bbands::default() });
        same("obv", &Obv::default());
        for (text, part) in [
            ("rsj", "rsi, macd, bbands"),
            ("rsi:periods=3", "periods"),
            ("rsi:period=3.5", "3.5"),
            ("rsi:period", "name=number"),
            ("rsi:period=x", "name=number"),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
        for name in NAMES {
            assert_eq!(parse(name).unwrap().spec().unwrap().shader.name, format!("indicators/{name}"));
        }
    }

    #[test]
    fn every_form_is_valid_wgsl_and_its_state_is_as_large_as_declared() {
        for class in [Class::Hardware, Class::Software] {
            for (name, source) in sources(class).unwrap() {
                let module = naga::front::wgsl::parse_str(&source.text).unwrap_or_else(|error| {
                    panic!("{name}: {}\n{}", error.emit_to_string(&source.text), source.text)
                });
                let flags = naga::valid::ValidationFlags::all();
                let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::all());
                validator
                    .validate(&module)
                    .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source.text)));
                let kept = module
                    .types
                    .iter()
                    .find(|(_, kind)| kind.name.as_deref().is_some_and(|name| name.ends_with("Kept")));
                if let Some((_, naga::Type { inner: naga::TypeInner::Struct { span, .. }, .. })) = kept {
                    assert_eq!(*span, source.state * 4, "{name}");
                } else {
                    assert!(!source.variant.flags.contains(&"keep"), "{name}");
                }
            }
        }
    }
}
