//! The price history of several instruments on common bars.

/// Candles of several instruments on the same, strictly increasing bars.
#[derive(Debug, Clone, PartialEq)]
pub struct Candles {
    /// Instruments, in a fixed (sorted) order.
    pub symbols: Vec<String>,
    /// Bars, strictly increasing.
    pub timestamps: Vec<jiff::civil::DateTime>,
    /// First price of each bar, `[instrument][bar]`.
    pub open: ndarray::Array2<f64>,
    /// Highest price of each bar, `[instrument][bar]`.
    pub high: ndarray::Array2<f64>,
    /// Lowest price of each bar, `[instrument][bar]`.
    pub low: ndarray::Array2<f64>,
    /// Last price of each bar, `[instrument][bar]`.
    pub close: ndarray::Array2<f64>,
    /// Traded volume, `[instrument][bar]`; `None` if no file has the column.
    pub volume: Option<ndarray::Array2<f64>>,
}
