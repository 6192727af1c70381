//! The timing test on the device against that on the CPU, on random markets, positions and rules.

use std::ops::Range;

use ndarray::Array2;
use phalanx::backtest::{PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::market::Candles;
use phalanx::random::Stream;
use phalanx::research::{random_timing, random_timing_on_device};
use proptest::prelude::*;

use crate::{common, testing};

/// Positions on candles, and the rules of their account.
#[derive(Debug)]
struct Case {
    candles: Candles,
    bars: Range<usize>,
    targets: Array2<f64>,
    options: ReplayOptions,
}

prop_compose! {
    fn costs()(
        bps in prop::array::uniform2(0.0..20.0f64),
        amounts in prop::array::uniform2(prop_oneof![Just(0.0), 0.0..2.0f64]),
        rates in prop::array::uniform3(prop_oneof![Just(0.0), 0.0..0.2f64]),
    ) -> Costs {
        Costs {
            commission_bps: bps[0],
            slippage_bps: bps[1],
            commission_per_unit: 0.01 * amounts[0],
            min_commission: amounts[1],
            borrow_rate: rates[0],
            cash_rate: rates[1],
            margin_rate: rates[2],
            ..Costs::NONE
        }
    }
}

prop_compose! {
    fn case()(
        (instruments, bars) in (1..6usize, 4..90usize),
        first in 0..9usize,
        seed in any::<u64>(),
        deviation in -4.0..-1.0f64,
        often in 0.02..1.0f64,
        (filled, funded) in any::<(bool, bool)>(),
        (costs, max_leverage) in (costs(), prop_oneof![Just(None), (0.2..2.0f64).prop_map(Some)]),
        (starting_equity, bankruptcy_level) in (1e2..1e7f64, 0.0..0.9f64),
        periods in 1.0..1e6f64,
    ) -> Case {
        let mut stream = Stream::new(seed, 5);
        let deviation = 10f64.powf(deviation);
        let mut candles = common::candles(instruments, first + bars, |_, _| deviation * stream.normal());
        let mask = Array2::from_shape_fn(candles.close.dim(), |(_, bar)| filled && bar > 0 && stream.uniform() < 0.2);
        for ((i, bar), _) in mask.indexed_iter().filter(|(_, filled)| **filled) {
            let close = candles.close[[i, bar - 1]];
            for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
                prices[[i, bar]] = close;
            }
            candles.volume.as_mut().unwrap()[[i, bar]] = 0.0;
        }
        let funding = mask.mapv(|filled| if filled { 0.0 } else { 1e-3 * stream.normal() });
        candles = candles.with_filled(mask).unwrap();
        if funded {
            candles = candles.with_funding(funding).unwrap();
        }
        let mut current = vec![0.0; instruments];
        let targets = Array2::from_shape_fn((bars - 1, instruments), |(_, i)| {
            if stream.uniform() < often {
                current[i] = 3.0 * stream.uniform() - 1.5;
            }
            current[i]
        });
        let periods_per_year = PeriodsPerYear::given(periods).unwrap();
        let options = ReplayOptions { costs, max_leverage, starting_equity, bankruptcy_level, periods_per_year };
        Case { candles, bars: first..first + bars, targets, options }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn device_and_cpu_find_the_same_p_value(case in case(), seed in any::<u64>()) {
        let Case { candles, bars, targets, options } = &case;
        let expected = random_timing(candles, bars, targets.view(), options, 40, seed).unwrap();
        let annual = options.periods_per_year.value().sqrt();
        for gpu in &testing::both_classes() {
            let found = random_timing_on_device(gpu, candles, bars, targets.view(), options, 40, seed).unwrap();
            prop_assert_eq!(found.p_value, expected.p_value);
            prop_assert!(found.on_device <= expected.sharpe.len());
            for (found, wanted) in found.sharpe.iter().zip(&expected.sharpe) {
                prop_assert!((found - wanted).abs() <= 1e-4 * annual, "Sharpe ratio {found} for {wanted}");
            }
            for (found, wanted) in found.total_return.iter().zip(&expected.total_return) {
                prop_assert!((found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "return {found} for {wanted}");
            }
        }
    }
}
