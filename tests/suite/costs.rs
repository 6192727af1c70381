//! Costs on the device against the f64 ledger.

use ndarray::Array2;
use phalanx::env::ledger::{Ledger, NextBar};
use phalanx::env::{ActionSpace, Episodes, TradingSettings};
use phalanx::market::Candles;
use phalanx::random::Stream;

use crate::market::{Stage, column, data, random_actions};
use crate::{common, testing};

/// Candles with filled bars, irregular days and funding.
fn costly_candles() -> Candles {
    let mut stream = Stream::new(18, 3);
    let mut candles = common::candles(3, 320, |i, _| 0.01 * (i + 1) as f64 * stream.normal());
    for (bar, timestamp) in candles.timestamps.iter_mut().enumerate() {
        *timestamp =
            timestamp.checked_add(jiff::Span::new().hours((bar * bar % 19 + 40 * bar) as i64)).unwrap();
    }
    let mask = Array2::from_shape_fn((3, 320), |(i, bar)| i > 0 && (bar * 7 + i) % 9 == 0);
    for ((i, bar), _) in mask.indexed_iter().filter(|(_, filled)| **filled) {
        let close = if bar == 0 { candles.open[[i, 0]] } else { candles.close[[i, bar - 1]] };
        for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
            prices[[i, bar]] = close;
        }
        candles.volume.as_mut().unwrap()[[i, bar]] = 0.0;
    }
    let funding = mask.mapv(|filled| if filled { 0.0 } else { 1e-3 * stream.normal() });
    candles.with_filled(mask).unwrap().with_funding(funding).unwrap()
}

/// Every cost, filled bars, funding, irregular time, levels beyond 1 and a leverage limit, with both action spaces.
#[test]
fn device_and_ledger_agree_on_every_cost() {
    let candles = costly_candles();
    for gpu in testing::both_classes() {
        let data = data(&gpu, &candles, 300);
        for actions in [ActionSpace::Positions, ActionSpace::Weights] {
            let settings = TradingSettings {
                commission_bps: 3.0,
                slippage_bps: 1.0,
                commission_per_unit: 0.005,
                min_commission: 2.0,
                spread_bps: 2.0,
                spreads_bps: [("S1".to_string(), 9.0)].into(),
                borrow_rate: 0.06,
                cash_rate: 0.03,
                margin_rate: 0.09,
                max_leverage: Some(1.1),
                starting_equity: 20_000.0,
                actions,
                positions: vec![-1.5, -0.5, 0.0, 1.0, 2.5],
                bankruptcy_level: 0.0,
                own_reward_weight: 0.4,
                reward_scale: 1.0,
                ..Default::default()
            };
            let bars = data.first_bar()..candles.bars();
            let steps = bars.len() - 1;
            let stage = Stage::new(&gpu, &data, &settings, &Episodes::Whole(bars.clone()), steps as u32);
            let mut chosen = random_actions(&stage, 5);
            if actions == ActionSpace::Weights {
                chosen.iter_mut().for_each(|action| *action = (*action as f32 * 0.45 - 0.9).to_bits());
                // Unbounded actions, and a policy that has diverged.
                let extremes = [3.0f32, -7.0, f32::NAN, f32::INFINITY].into_iter().cycle();
                for (step, extreme) in (0..steps).step_by(7).zip(extremes) {
                    chosen[stage.at(step, step % 3, 1)] = extreme.to_bits();
                }
            }
            stage.run(&chosen);
            let (rewards, seen) = (stage.floats(&stage.rewards), stage.floats(&stage.observations));
            let costs = settings.costs(&candles.symbols).unwrap();
            let ledger = Ledger::new(3, settings.starting_equity, 0.0, costs).unwrap();
            let mut ledger = ledger.with_max_leverage(settings.max_leverage).unwrap();
            let (mut cut, mut waited) = (0, 0);
            for step in 0..steps {
                let bar = bars.start + step;
                let level = |a: usize| match chosen[stage.at(step, a, 1)] {
                    action if actions == ActionSpace::Positions => settings.positions[action as usize],
                    action => {
                        let number =
                            Some(f32::from_bits(action)).filter(|number| number.is_finite()).unwrap_or(0.0);
                        f64::from(-1.5 + (0.5 * number.clamp(-1.0, 1.0) + 0.5) * 4.0)
                    }
                };
                let targets: Vec<f64> = (0..3).map(level).collect();
                let [close, open, next] =
                    [(&candles.close, bar), (&candles.open, bar + 1), (&candles.close, bar + 1)]
                        .map(|(p, b)| column(p, b));
                let filled = candles.filled.as_ref().unwrap().column(bar + 1).to_vec();
                let funding = column(candles.funding.as_ref().unwrap(), bar + 1);
                let prices = NextBar::new(&close, &open, &next).years(candles.years_before(bar + 1));
                let before = ledger.equity();
                let expected = ledger.step(&targets, &prices.filled(&filled).funding(&funding)).unwrap();
                for agent in 0..3 {
                    let got = f64::from(rewards[stage.at(step, agent, 1)]);
                    let wanted = 0.4 * expected.own_log_return[agent] + 0.6 * expected.log_return;
                    assert!(
                        (got - wanted).abs() < 1e-6,
                        "{actions:?} bar {bar} agent {agent}: {got} for {wanted}"
                    );
                    let slot = if step + 1 == steps { steps + 1 } else { step + 1 };
                    let level = f64::from(stage.observed(&seen, slot, stage.obs_dim - 2, agent, 1));
                    assert!((level - ledger.level()[agent]).abs() < 1e-6);
                    let weight = f64::from(stage.observed(&seen, slot, stage.obs_dim - 1, agent, 1));
                    let held =
                        (ledger.quantity()[agent] * next[agent] * 3.0 / ledger.equity()).clamp(-5.0, 5.0);
                    assert!(
                        (weight - held).abs() < 1e-5 * held.abs().max(1.0),
                        "bar {bar}: {weight} for {held}"
                    );
                    waited += usize::from(level != targets[agent]);
                }
                let gross: f64 = ledger.quantity().iter().zip(&open).map(|(q, o)| (q * o).abs()).sum();
                cut += usize::from(!expected.trades.is_empty() && gross > 1.05 * before);
            }
            assert!(cut > 20 && waited > 20, "the limit bound {cut} times, {waited} orders waited");
        }
    }
}
