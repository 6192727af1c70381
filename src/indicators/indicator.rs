//! The description of an indicator: its shader, parameters, state and outputs.

use crate::gpu::Shader;
use crate::{Error, Result};

/// Restricts [`Indicator`] to this crate: indicator kernels run without bounds checks and rely on a correct [`Spec`].
pub(super) mod sealed {
    pub trait Sealed {}
    impl<I: Sealed + ?Sized> Sealed for Box<I> {}
}

/// An indicator with its parameters. Only types of this crate implement it.
pub trait Indicator: sealed::Sealed {
    /// The description from which the indicator's kernel is composed.
    ///
    /// # Errors
    /// [`Error::Config`] with the parameter that is out of range and its bounds.
    fn spec(&self) -> Result<Spec>;
}

impl<I: Indicator + ?Sized> Indicator for Box<I> {
    fn spec(&self) -> Result<Spec> {
        (**self).spec()
    }
}

/// The values of a bar that an indicator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The close.
    Close,
    /// High, low and close.
    Candle,
    /// High, low, close and volume.
    Trades,
}

/// Representation of an output's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Anything but a price level, such as an oscillator or a difference of prices. Stored as is.
    Plain,
    /// A price. The device stores its difference from the close of the bar, which f32 represents precisely at any price
    /// level; [`super::Panel::read`] adds the close in f64. An extreme far from the close is read as a price in f32.
    Price,
}

/// One output of an indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name, for instance `macd_signal`.
    pub name: &'static str,
    /// Representation of its values.
    pub unit: Unit,
}

/// A constant of a shader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// WGSL `f32`.
    F32(f64),
    /// WGSL `u32`.
    U32(u32),
    /// WGSL `bool`.
    Bool(bool),
}

/// An exponential moving average, seeded with the mean of its first values (`shaders/lib/average.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// Name of its module in the indicator's shader.
    pub name: &'static str,
    /// Number of values in the initial mean.
    pub period: u32,
    /// Weight of a new value.
    pub weight: f64,
}

impl Average {
    /// An exponential moving average: weight 2 / (period + 1).
    #[must_use]
    pub fn exponential(name: &'static str, period: u32) -> Self {
        Self { name, period, weight: 2.0 / (f64::from(period) + 1.0) }
    }

    /// Wilder's average: weight 1 / period.
    #[must_use]
    pub fn wilder(name: &'static str, period: u32) -> Self {
        Self { name, period, weight: 1.0 / f64::from(period) }
    }

    /// Number of values after which earlier ones no longer affect the f32 result: (1 - weight)^n is below 2^-26.
    #[must_use]
    pub fn memory(&self) -> u32 {
        self.decayed(18.03)
    }

    /// As [`Average::memory`] for a quotient of two averages, with the bound 2^-40: in a quotient, a single large value
    /// among small ones has a longer influence.
    #[must_use]
    pub fn memory_of_ratio(&self) -> u32 {
        self.decayed(27.73)
    }

    fn decayed(&self, exponent: f64) -> u32 {
        let decay = -(-self.weight).ln_1p();
        if decay.is_finite() {
            self.period.saturating_add((exponent / decay).ceil() as u32)
        } else {
            self.period
        }
    }
}

/// A window of the last values of a quantity: `shaders/lib/window.wgsl`, `lag.wgsl` or `extreme.wgsl` in registers, and
/// `ring.wgsl`, `lag_ring.wgsl` or `extreme_ring.wgsl` in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name of its module in the indicator's shader.
    pub name: &'static str,
    /// Number of values.
    pub length: u32,
    /// Code that the shader compares with. `Lag`, `Highest` and `Lowest` stand alone.
    pub needs: &'static [Need],
}

impl Window {
    /// Whether the shader reads `need`.
    pub(super) fn has(&self, need: Need) -> bool {
        self.needs.contains(&need)
    }

    /// Whether it is the highest or the lowest value that the shader reads.
    pub(super) fn is_extreme(&self) -> bool {
        self.has(Need::Highest) || self.has(Need::Lowest)
    }
}

/// A property or statistic of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The values are prices, pushed relative to the close.
    Prices,
    /// The close of `length` bars ago: `push(bar)` returns it.
    Lag,
    /// The highest price: `push(price)` returns it.
    Highest,
    /// The lowest price: `push(price)` returns it.
    Lowest,
    /// `sum()`. `Squares` and `Weighted` require it too.
    Sum,
    /// `moments()`.
    Squares,
    /// `weighted()`.
    Weighted,
    /// `spread()` (the sum of absolute deviations) or every `value()`. The only need whose cost grows with the length.
    Each,
}

/// The description of an indicator from which its kernel is composed.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The shader with the function `step`.
    pub shader: Shader,
    /// Outputs of `step`, which returns a scalar or a vector with one component per output.
    pub outputs: &'static [Output],
    /// Values of a bar that `step` reads.
    pub input: Input,
    /// 0-based index of the first bar with a value.
    pub first: u32,
    /// 0-based index of the first bar at which all outputs have a value.
    pub complete: u32,
    /// Number of bars after which earlier bars no longer affect the f32 result; `None` if they always do.
    pub memory: Option<u32>,
    /// Whether an output is a quotient of averages. On constant prices both averages decay at the same rate, so the
    /// quotient depends on bars beyond `memory`.
    pub ratio: bool,
    /// Further constants of the shader, in its module `parameters`.
    pub constants: Vec<(&'static str, Value)>,
    /// Averages that the shader uses.
    pub averages: Vec<Average>,
    /// Windows that the shader uses.
    pub windows: Vec<Window>,
    /// Size of the shader's `State` in 4-byte words, 0 if it has none.
    pub state: u32,
}

impl Spec {
    /// Whether an output is an extreme of prices, which may be far from the close and smaller: then its difference from the
    /// close has fewer of its digits than the price itself in f32, so that both are stored.
    pub(super) fn is_price_extreme(&self, output: &Output) -> bool {
        output.unit == Unit::Price && self.windows.iter().any(Window::is_extreme)
    }

    /// Whether an output is a sum over all bars, so that those over parts of a series can be added.
    pub(super) fn is_sum(&self) -> bool {
        self.shader.name == super::obv::SHADER.name
    }

    /// [`Spec::memory`] on a series that has long runs of equal closes (`still`) or none.
    pub(super) fn memory_over(&self, still: bool) -> Option<u32> {
        self.memory.filter(|_| !(still && self.ratio))
    }
}

/// Largest period, as in TA-Lib.
pub const LONGEST: u32 = 100_000;

/// Checks that a period is between `least` and [`LONGEST`].
///
/// # Errors
/// [`Error::Config`] with the parameter and its bounds.
pub fn check(parameter: &str, period: u32, least: u32) -> Result<()> {
    if (least..=LONGEST).contains(&period) {
        return Ok(());
    }
    Err(Error::config(
        parameter,
        format!("{period} is out of range; it has to be between {least} and {LONGEST} bars"),
    ))
}

/// Checks that a factor is above 0 and at most `most`.
///
/// # Errors
/// [`Error::Config`] with the parameter and its bounds.
pub fn check_factor(parameter: &str, value: f64, most: f64) -> Result<()> {
    if value > 0.0 && value <= most {
        return Ok(());
    }
    Err(Error::config(parameter, format!("{value} is out of range; it has to be above 0 and at most {most}")))
}
