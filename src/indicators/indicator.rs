//! What an indicator says of itself: its shader, parameters, state and outputs.

use crate::gpu::Shader;
use crate::{Error, Result};

/// An indicator with its parameters.
pub trait Indicator {
    /// What the composer has to know to put the indicator into a kernel.
    ///
    /// # Errors
    /// [`Error::Config`] naming the parameter that is out of range, and its bounds.
    fn spec(&self) -> Result<Spec>;
}

impl<I: Indicator + ?Sized> Indicator for Box<I> {
    fn spec(&self) -> Result<Spec> {
        (**self).spec()
    }
}

/// What the prices of an indicator's bar have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The close.
    Close,
    /// High, low and close.
    Candle,
    /// High, low, close and volume.
    Trades,
}

/// What the values of an output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Neither a price nor a difference of prices, or a difference of prices: the same on device and host.
    Plain,
    /// A price. On the device it is measured from the close of its bar, which f32 holds to the last digit at any price
    /// level; [`super::Panel::read`] adds the close in f64.
    Price,
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name, for instance `macd_signal`.
    pub name: &'static str,
    /// What its values are.
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

/// An exponential average that starts as the mean of its first values (`shaders/lib/average.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// Name of its module in the indicator's shader.
    pub name: &'static str,
    /// Values of its first mean.
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

    /// Values after which it is the same in f32 whatever it was before: (1 - weight)^n below 2^-26.
    #[must_use]
    pub fn memory(&self) -> u32 {
        self.decayed(18.03)
    }

    /// The same for averages that are divided by one another, to 2^-40: one large value among small ones counts longer.
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

/// The last values of something (`shaders/lib/window.wgsl`, `shaders/lib/ring.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name of its module in the indicator's shader.
    pub name: &'static str,
    /// Number of values.
    pub length: u32,
    /// What is asked of it, besides its oldest value.
    pub needs: &'static [Need],
}

/// What is asked of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `sum()`; also needed by the next two.
    Sum,
    /// `moments()`.
    Squares,
    /// `weighted()`.
    Weighted,
    /// `highest()`, `lowest()`.
    Extremes,
    /// `spread()`, or every `value()`: the one whose cost grows with the length.
    Each,
}

/// What an indicator says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The shader with the function `step`.
    pub shader: Shader,
    /// What `step` returns: a scalar, or a vector with a component for each.
    pub outputs: &'static [Output],
    /// What has to be there of a bar.
    pub input: Input,
    /// 0-based position of the first bar with a value.
    pub first: u32,
    /// 0-based position of the first bar at which all outputs have a value.
    pub complete: u32,
    /// Bars after which nothing earlier matters to f32; `None` if it always does.
    pub memory: Option<u32>,
    /// Whether outputs are quotients of averages: where nothing moves they keep what moved long before, however little
    /// of it is left.
    pub ratio: bool,
    /// Further constants of the shader, in its module `parameters`.
    pub constants: Vec<(&'static str, Value)>,
    /// Averages.
    pub averages: Vec<Average>,
    /// Windows.
    pub windows: Vec<Window>,
    /// Words of the shader's own `State`, 0 if it has none.
    pub state: u32,
}

impl Spec {
    /// [`Spec::memory`] over series that stay still for long stretches or do not.
    pub(super) fn memory_over(&self, still: bool) -> Option<u32> {
        self.memory.filter(|_| !(still && self.ratio))
    }
}

/// Largest period, as in TA-Lib.
pub const LONGEST: u32 = 100_000;

/// Checks a period against its bounds.
///
/// # Errors
/// [`Error::Config`] naming the parameter and its bounds.
pub fn check(parameter: &str, period: u32, least: u32) -> Result<()> {
    if (least..=LONGEST).contains(&period) {
        return Ok(());
    }
    Err(Error::config(parameter, format!("{period} bars; it has to be {least} to {LONGEST}")))
}

/// Checks that a factor is above 0 and at most `most`.
///
/// # Errors
/// [`Error::Config`] naming the parameter and its bounds.
pub fn check_factor(parameter: &str, value: f64, most: f64) -> Result<()> {
    if value > 0.0 && value <= most {
        return Ok(());
    }
    Err(Error::config(parameter, format!("{value}; it has to be above 0 and at most {most}")))
}
