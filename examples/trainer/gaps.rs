//! Says how many bars the gap policy filled or dropped.

use phalanx::market::Candles;

/// Instruments that are named; the rest is counted.
const MOST: usize = 10;

/// One line each for filled and for dropped bars, with its heading; none where there are no such bars.
pub fn lines(candles: &Candles) -> Vec<(&'static str, String)> {
    let bars = candles.bars();
    let filled = listed(candles, &candles.filled_bars());
    let filled = filled.map(|list| ("Filled", format!("{list} of {bars} bars; no order fills at them")));
    let dropped = listed(candles, &candles.dropped);
    let dropped = dropped
        .map(|list| ("Dropped", format!("{list} bars that other instruments lack; {bars} bars are left")));
    filled.into_iter().chain(dropped).collect()
}

/// "AAPL 3, IBM 12 and 5 more instruments".
fn listed(candles: &Candles, counts: &[usize]) -> Option<String> {
    let affected = candles.symbols.iter().zip(counts).filter(|(_, count)| **count > 0);
    let texts: Vec<String> = affected.map(|(symbol, count)| format!("{symbol} {count}")).collect();
    let more = texts.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more instruments") } else { String::new() };
    (!texts.is_empty()).then(|| format!("{}{rest}", texts[..texts.len() - more].join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx::ndarray::Array2;

    fn candles(instruments: usize) -> Candles {
        let ones = Array2::ones((instruments, 2));
        let [open, high, low, close] = [0; 4].map(|_| ones.clone());
        let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
        let days = ["2020-01-01", "2020-01-02"].map(|day| phalanx::market::parse_timestamp(day).unwrap());
        Candles::new(symbols, days.to_vec(), open, high, low, close, None).unwrap()
    }

    #[test]
    fn instruments_are_named_and_a_long_list_is_counted() {
        assert_eq!(lines(&candles(3)), []);
        let mask = Array2::from_shape_fn((13, 2), |(i, bar)| i != 1 && bar == 1);
        let filled = lines(&candles(13).with_filled(mask).unwrap());
        let [("Filled", text)] = &filled[..] else { panic!("{filled:?}") };
        assert!(
            text.starts_with("S0 1, S2 1, ") && text.contains("S10 1 and 2 more instruments of 2 bars"),
            "{text}"
        );
        let dropped = lines(&Candles { dropped: vec![0, 4, 0], ..candles(3) });
        assert_eq!(dropped, [("Dropped", "S1 4 bars that other instruments lack; 2 bars are left".into())]);
    }
}
