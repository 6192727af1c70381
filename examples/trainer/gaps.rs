//! Says how many bars the gap policy filled or dropped.

use phalanx::market::Candles;

/// Instruments that are named; the rest is counted.
const MOST: usize = 10;

/// One line each for filled and for dropped bars, with its heading; none where there are no such bars.
pub fn lines(candles: &Candles) -> Vec<(&'static str, String)> {
    let bars = candles.bars();
    let filled = listed(candles, &candles.filled_bars(), |symbol, count| format!("{symbol} {count}"));
    let filled =
        filled.map(|list| ("Filled", format!("{list} of {}; no order fills at them", counted(bars))));
    let dropped = listed(candles, &candles.dropped, |symbol, count| format!("{symbol}: {}", counted(count)));
    let dropped = dropped.map(|list| {
        let are = if bars == 1 { "is" } else { "are" };
        ("Dropped", format!("{list} that other instruments lack; {} {are} left", counted(bars)))
    });
    filled.into_iter().chain(dropped).collect()
}

/// "1 bar", "2 bars".
pub fn counted(bars: usize) -> String {
    if bars == 1 { "1 bar".into() } else { format!("{bars} bars") }
}

/// "AAPL 3, IBM 12 and 5 more instruments", the first ones as `text` writes them.
fn listed(candles: &Candles, counts: &[usize], text: impl Fn(&str, usize) -> String) -> Option<String> {
    let affected = candles.symbols.iter().zip(counts).filter(|(_, count)| **count > 0);
    let texts: Vec<String> = affected.map(|(symbol, count)| text(symbol, *count)).collect();
    let rest = match texts.len().saturating_sub(MOST) {
        0 => String::new(),
        1 => " and 1 more instrument".into(),
        more => format!(" and {more} more instruments"),
    };
    let named = texts.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    (!texts.is_empty()).then(|| format!("{named}{rest}"))
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
        assert_eq!(dropped, [("Dropped", "S1: 4 bars that other instruments lack; 2 bars are left".into())]);
        let dropped = lines(&Candles { dropped: vec![1, 0, 2], ..candles(3) });
        let expected = "S0: 1 bar, S2: 2 bars that other instruments lack; 2 bars are left";
        assert_eq!(dropped, [("Dropped", expected.into())]);
    }
}
