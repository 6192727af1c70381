//! Bars that the gap policy filled: they fill no order, move no indicator, and agents see which they are.

use std::path::Path;

use ndarray::{Array2, Axis};
use phalanx::backtest::{Backtest, PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::env::{Episodes, TradingSettings};
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, ExtraFeatures, FEATURES, FILLED, GapPolicy, MarketData, Scaling};
use phalanx::random::Stream;

use crate::market::{ENVS, Stage};
use crate::{common, testing};

/// X has no bar on 20 February 2024 and jumps from 100 to 110 on the 21st; Y stays at 50.
fn stale() -> Candles {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/stale_fill");
    Candles::load(&[path], GapPolicy::ForwardFill).unwrap()
}

/// The bar of 19 February.
const BEFORE: usize = 49;

#[test]
fn an_order_fills_at_the_next_real_bar() {
    let candles = stale();
    assert_eq!(
        (candles.filled_bars(), &*candles.timestamps[BEFORE].date().to_string()),
        (vec![1, 0], "2024-02-19")
    );
    let bars = BEFORE..candles.bars();
    let options = ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(365.0).unwrap(),
    };
    let long = Array2::ones((bars.len() - 1, 2));
    let backtest = Backtest::replay(&candles, bars, long.view(), &options).unwrap();
    let fills: Vec<_> = backtest
        .trades
        .iter()
        .map(|fill| (fill.timestamp.date().to_string(), &*fill.symbol, fill.trade.price))
        .collect();
    assert_eq!(fills, [("2024-02-20".into(), "Y", 50.0), ("2024-02-21".into(), "X", 110.0)]);
    assert_eq!(backtest.metrics.total_return, 0.0, "X was not bought before its jump");
    assert_eq!(backtest.equity, backtest.benchmark_equity);
}

#[test]
fn an_order_waits_on_the_device() {
    for gpu in testing::both_classes() {
        let candles = stale();
        let unmarked = crate::market::data(&gpu, &candles, BEFORE);
        assert_eq!(unmarked.features(), FEATURES.len(), "a mark that training never sees is no input");
        let data = crate::market::data(&gpu, &candles, BEFORE + 2);
        let settings = TradingSettings { commission_bps: 0.0, slippage_bps: 0.0, ..Default::default() };
        let bars = BEFORE..candles.bars();
        let stage = Stage::new(&gpu, &data, &settings, &Episodes::Whole(bars), 4);
        stage.run(&vec![2; stage.steps * stage.agents * ENVS as usize]);
        assert!(
            stage.floats(&stage.rewards)[..stage.steps * 2 * ENVS as usize]
                .iter()
                .all(|reward| *reward == 0.0)
        );
        let seen = stage.floats(&stage.observations);
        let levels = |slot| [0, 1].map(|agent| stage.observed(&seen, slot, stage.obs_dim - 2, agent, 0));
        assert_eq!([0, 1, 2].map(levels), [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        let marks = |slot| [0, 1].map(|agent| stage.observed(&seen, slot, FEATURES.len(), agent, 0));
        assert_eq!(
            [0, 1, 2].map(marks),
            [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]],
            "agents see that X has no bar"
        );
    }
}

/// Unscaled features, `[bar][instrument][feature]`, and the market.
fn features(gpu: &Gpu, candles: &Candles, marked: bool) -> (Vec<u32>, MarketData) {
    let extra = ExtraFeatures::default();
    let mut raw =
        MarketData::new(gpu, candles, &extra, &Scaling::Fit(0..candles.bars())).unwrap().scaling().clone();
    assert_eq!(raw.features.last().is_some_and(|name| name == FILLED), marked);
    raw.moments.fill([0.0, 1.0]);
    let data = MarketData::new(gpu, candles, &extra, &Scaling::Given(raw)).unwrap();
    (gpu.read(data.buffer()).unwrap(), data)
}

#[test]
fn features_are_those_of_the_real_bars() {
    let gpu = testing::gpu();
    let mut stream = Stream::new(21, 3);
    let mut candles = common::candles(3, 150, |_, _| 0.02 * stream.normal());
    // The second instrument lacks its first bars, single ones, and a run; the third lacks one.
    let lacks = |i: usize, bar: usize| match i {
        1 => bar < 3 || bar % 11 == 5 || (70..90).contains(&bar),
        2 => bar == 100,
        _ => false,
    };
    let real: Vec<Candles> = (0..3).map(|i| only(&candles, i, |bar| !lacks(i, bar))).collect();
    let mask = Array2::from_shape_fn((3, 150), |(i, bar)| lacks(i, bar));
    for ((i, bar), _) in mask.indexed_iter().filter(|(_, filled)| **filled) {
        let close = if bar == 0 { candles.open[[i, 0]] } else { candles.close[[i, bar - 1]] };
        for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
            prices[[i, bar]] = close;
        }
        candles.volume.as_mut().unwrap()[[i, bar]] = 0.0;
    }
    let candles = candles.with_filled(mask).unwrap();
    let (found, data) = features(&gpu, &candles, true);
    // Warm-up counts the second instrument's real bars.
    assert_eq!(data.first_bar(), 33 + 3 + 4, "{}", data.first_bar());
    let width = FEATURES.len() + 1;
    for (i, real) in real.iter().enumerate() {
        let (expected, alone) = features(&gpu, real, false);
        let mut position = usize::MAX;
        for bar in 0..150 {
            position = position.wrapping_add(usize::from(!lacks(i, bar)));
            if bar < data.first_bar() {
                continue;
            }
            assert!(position >= alone.first_bar());
            let row = &found[(bar * 3 + i) * width..][..width];
            assert_eq!(row[..width - 1], expected[position * (width - 1)..][..width - 1], "bar {bar} of {i}");
            assert_eq!(f32::from_bits(row[width - 1]), f32::from(u8::from(lacks(i, bar))));
        }
    }
    // A model that never saw filled bars is given none of the marks.
    let mut unmarked = data.scaling().clone();
    unmarked.features.pop();
    unmarked.moments = vec![[0.0, 1.0]; 3 * FEATURES.len()];
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Given(unmarked)).unwrap();
    assert_eq!(data.features(), FEATURES.len());
}

/// The bars of one instrument that `keep` selects.
fn only(candles: &Candles, instrument: usize, keep: impl Fn(usize) -> bool) -> Candles {
    let kept: Vec<usize> = (0..candles.bars()).filter(|bar| keep(*bar)).collect();
    let part = |prices: &Array2<f64>| prices.select(Axis(1), &kept).select(Axis(0), &[instrument]);
    Candles::new(
        vec![candles.symbols[instrument].clone()],
        kept.iter().map(|bar| candles.timestamps[*bar]).collect(),
        part(&candles.open),
        part(&candles.high),
        part(&candles.low),
        part(&candles.close),
        candles.volume.as_ref().map(part),
    )
    .unwrap()
}
