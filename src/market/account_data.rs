//! Prices, times and funding rates of candles as kernels read them that trade an account.

use std::ops::Range;

use super::Candles;
use super::sources::gap;

/// Bars of candles in f32.
pub(crate) struct AccountData {
    /// Gap, move, open and close, `[bar][instrument]`. Gap is the open minus the previous close, move the close minus the open; both are
    /// computed in f64. The open of a filled bar is 0: orders wait.
    pub(crate) prices: Vec<[f32; 4]>,
    /// Years since the previous bar, `[bar]`.
    pub(crate) years: Vec<f32>,
    /// Funding rates, `[bar][instrument]`; empty if the candles have none.
    pub(crate) funding: Vec<f32>,
}

impl AccountData {
    /// The bars `bars` of `candles`, which have them.
    pub(crate) fn new(candles: &Candles, bars: Range<usize>) -> Self {
        let instruments = candles.symbols.len();
        let all = || bars.clone().flat_map(|bar| (0..instruments).map(move |instrument| [instrument, bar]));
        let prices = all().map(|at| {
            let (open, close) = (candles.open[at], candles.close[at]);
            let filled = candles.filled.as_ref().is_some_and(|filled| filled[at]);
            let open_to_orders = if filled { 0.0 } else { open };
            [gap(candles, at[0], at[1]), close - open, open_to_orders, close].map(|price| price as f32)
        });
        let funding = candles.funding.iter().flat_map(|funding| all().map(|at| funding[at] as f32));
        Self {
            prices: prices.collect(),
            years: bars.clone().map(|bar| candles.years_before(bar) as f32).collect(),
            funding: funding.collect(),
        }
    }
}
