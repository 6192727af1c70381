use super::*;

const FREE: Costs = Costs::NONE;

/// Knuth's MMIX generator: uniform in [0, 1).
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn price_move(&mut self, price: f64, size: f64) -> f64 {
        price * (size * (2.0 * self.next() - 1.0)).exp()
    }
}

fn close_to(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-300), "got {got:e}, want {want:e}");
}

#[test]
fn one_long_trade_by_hand() {
    // Equity 1000, target 1, open 50 give 20 units. Slippage 10 bps -> fill 50.05, cost 20*0.05 = 1.
    // Commission 20 bps of 20*50.05 = 2.002. Close 55: +100. Equity 1000 - 3.002 + 100.
    let costs = Costs { commission_bps: 20.0, slippage_bps: 10.0, ..FREE };
    let mut ledger = Ledger::new(1, 1000.0, 0.1, costs).unwrap();
    let step = ledger.step(&[1.0], &NextBar::new(&[48.0], &[50.0], &[55.0])).unwrap();
    let [trade] = step.trades[..] else { panic!("one trade, got {:?}", step.trades) };
    close_to(trade.quantity, 20.0, 1e-15);
    close_to(trade.price, 50.05, 1e-15);
    close_to(trade.slippage, 1.0, 1e-14);
    close_to(trade.commission, 2.002, 1e-14);
    assert_eq!((trade.level_before, trade.level_after, trade.open, trade.instrument), (0.0, 1.0, 50.0, 0));
    close_to(ledger.equity(), 1096.998, 1e-14);
    close_to(step.log_return, 1.096_998_f64.ln(), 1e-13);
    close_to(step.own_log_return[0], step.log_return, 1e-13);

    // An unchanged target: the 20 units earn the gap of +2 and the bar's -1, without a trade or costs.
    let step = ledger.step(&[1.0], &NextBar::new(&[55.0], &[57.0], &[56.0])).unwrap();
    assert!(step.trades.is_empty());
    close_to(ledger.equity(), 1116.998, 1e-14);
}

#[test]
fn a_short_earns_when_the_price_falls_and_sells_below_the_open() {
    let costs = Costs { slippage_bps: 100.0, ..FREE };
    let mut ledger = Ledger::new(2, 1000.0, 0.1, costs).unwrap();
    let step = ledger.step(&[-1.0, 0.0], &NextBar::new(&[10.0, 1.0], &[10.0, 1.0], &[8.0, 3.0])).unwrap();
    close_to(step.trades[0].quantity, -50.0, 1e-15);
    close_to(step.trades[0].price, 9.9, 1e-15);
    close_to(ledger.equity(), 1000.0 - 5.0 + 100.0, 1e-14);
    close_to(step.own_log_return[0], (1.0_f64 + 2.0 * 95.0 / 1000.0).ln(), 1e-13);
    assert_eq!(step.own_log_return[1], 0.0);
    // Reversing to long buys back the 50 borrowed units and the new position, above the open.
    let step = ledger.step(&[1.0, 0.0], &NextBar::new(&[8.0, 3.0], &[9.0, 3.0], &[9.0, 3.0])).unwrap();
    let stake = (1095.0 - 50.0) / 2.0;
    close_to(step.trades[0].quantity, 50.0 + stake / 9.0, 1e-14);
    close_to(step.trades[0].price, 9.09, 1e-15);
}

#[test]
fn the_gap_belongs_to_the_old_position() {
    let mut ledger = Ledger::new(1, 100.0, 0.0, FREE).unwrap();
    ledger.step(&[1.0], &NextBar::new(&[10.0], &[10.0], &[10.0])).unwrap();
    let step = ledger.step(&[0.0], &NextBar::new(&[10.0], &[15.0], &[1.0])).unwrap();
    close_to(ledger.equity(), 150.0, 1e-15);
    close_to(step.log_return, 1.5_f64.ln(), 1e-15);
    assert_eq!((ledger.quantity(), ledger.level()), (&[0.0][..], &[0.0][..]));
}

#[test]
fn an_order_waits_for_the_next_real_bar() {
    let mut ledger = Ledger::new(2, 1000.0, 0.0, FREE).unwrap();
    let flat = [100.0, 50.0];
    let step = ledger.step(&[1.0, 1.0], &NextBar::new(&flat, &flat, &flat).filled(&[true, false])).unwrap();
    assert_eq!(step.trades.iter().map(|trade| trade.instrument).collect::<Vec<_>>(), [1]);
    assert_eq!(ledger.level(), [0.0, 1.0]);
    // The first instrument jumps before it can be bought.
    let jump = [110.0, 50.0];
    let step = ledger.step(&[1.0, 1.0], &NextBar::new(&flat, &jump, &jump).filled(&[false, false])).unwrap();
    assert_eq!((step.trades[0].instrument, step.trades[0].price), (0, 110.0));
    assert_eq!((ledger.equity(), ledger.level()), (1000.0, &[1.0, 1.0][..]));
    // A held position is marked at the last close, and an order that is taken back never fills.
    ledger.step(&[0.0, 1.0], &NextBar::new(&jump, &jump, &jump).filled(&[true, false])).unwrap();
    let step = ledger.step(&[1.0, 1.0], &NextBar::new(&jump, &flat, &flat)).unwrap();
    assert!(step.trades.is_empty());
    let error = ledger.step(&[1.0, 1.0], &NextBar::new(&flat, &flat, &flat).filled(&[true])).unwrap_err();
    assert!(error.to_string().contains("filled: expected 2 instruments, got 1"), "{error}");
}

#[test]
fn all_instruments_are_sized_with_the_same_equity() {
    let mut ledger = Ledger::new(2, 1000.0, 0.0, Costs::default()).unwrap();
    let step = ledger.step(&[1.0, 1.0], &NextBar::new(&[10.0, 10.0], &[10.0, 10.0], &[11.0, 11.0])).unwrap();
    assert_eq!(step.trades[0].quantity, step.trades[1].quantity);
    assert_eq!(step.own_log_return[0], step.own_log_return[1]);
    close_to(step.own_log_return[0], step.log_return, 1e-12);
}

#[test]
fn a_bankrupt_account_is_closed_for_good() {
    let mut ledger = Ledger::new(1, 100.0, 0.1, FREE).unwrap();
    let step = ledger.step(&[1.0], &NextBar::new(&[10.0], &[10.0], &[1.0])).unwrap();
    assert!(step.bankrupt && ledger.bankrupt(), "exactly at the level is bankrupt");
    close_to(ledger.equity(), 10.0, 1e-15);
    assert_eq!((ledger.quantity(), ledger.level()), (&[0.0][..], &[0.0][..]));
    let frozen = ledger.clone();
    let step = ledger.step(&[-1.0], &NextBar::new(&[1.0], &[5.0], &[9.0])).unwrap();
    assert_eq!(
        step,
        Step {
            log_return: 0.0,
            own_log_return: vec![0.0],
            contributions: vec![Contribution::default()],
            trades: vec![],
            financing: Financing::default(),
            bankrupt: true
        }
    );
    assert_eq!(ledger, frozen);
}

#[test]
fn a_short_can_lose_more_than_the_account_and_the_log_return_stays_finite() {
    let mut ledger = Ledger::new(1, 100.0, 0.1, FREE).unwrap();
    ledger.step(&[-1.0], &NextBar::new(&[10.0], &[10.0], &[10.0])).unwrap();
    // The gap alone loses twice the account; the new position is sized with zero equity.
    let step = ledger.step(&[1.0], &NextBar::new(&[10.0], &[30.0], &[30.0])).unwrap();
    close_to(step.trades[0].quantity, 10.0, 1e-15);
    assert_eq!(step.log_return, MIN_RATIO.ln());
    assert_eq!(step.own_log_return[0], MIN_RATIO.ln());
    close_to(ledger.equity(), -100.0, 1e-14);
    assert!(step.bankrupt);
}

/// Independent accounting: trades move cash at fill prices, and the account is worth cash plus units at the close.
#[test]
fn a_cash_account_agrees_over_random_actions_and_prices() {
    const LEVELS: [f64; 5] = [-1.0, -0.5, 0.0, 0.5, 1.0];
    let mut bankruptcies = 0;
    for (seed, count, size) in
        (0..60).map(|seed| (seed, 1 + seed as usize % 5, [0.01, 0.05, 0.3][seed as usize % 3]))
    {
        let mut random = Lcg(seed);
        let mut costs =
            Costs { commission_bps: 30.0 * random.next(), slippage_bps: 30.0 * random.next(), ..FREE };
        if seed % 2 == 1 {
            costs = Costs {
                commission_per_unit: 0.01 * random.next(),
                min_commission: 2.0,
                spread_bps: (0..count).map(|_| 20.0 * random.next()).collect(),
                borrow_rate: 0.2,
                cash_rate: 0.03,
                margin_rate: 0.1,
                ..costs
            };
        }
        let mut ledger = Ledger::new(count, 1e4, 0.1, costs.clone()).unwrap();
        let mut close: Vec<f64> = (0..count).map(|_| 1.0 + 500.0 * random.next()).collect();
        // The rounding error of cash is relative to the largest amounts that were added to it.
        let (mut cash, mut units, mut scale) = (1e4_f64, vec![0.0; count], 1e4_f64);
        for _ in 0..300 {
            let targets: Vec<f64> = ledger
                .level()
                .iter()
                .map(
                    |level| if random.next() < 0.5 { *level } else { LEVELS[(random.next() * 5.0) as usize] },
                )
                .collect();
            let open: Vec<f64> = close.iter().map(|c| random.price_move(*c, size)).collect();
            let next: Vec<f64> = open.iter().map(|o| random.price_move(*o, size)).collect();
            let before = ledger.equity();
            let (years, funding) = (0.01 * random.next(), vec![1e-3 * (random.next() - 0.3); count]);
            let bar = NextBar::new(&close, &open, &next).years(years).funding(&funding);
            let step = ledger.step(&targets, &bar).unwrap();
            let shorts: f64 = units.iter().zip(&close).map(|(q, c): (&f64, &f64)| (-q * c).max(0.0)).sum();
            let free = cash - shorts;
            let rate = if free > 0.0 { costs.cash_rate } else { costs.margin_rate };
            cash += years * (rate * free - costs.borrow_rate * shorts);
            for trade in &step.trades {
                cash -= trade.quantity * trade.price + trade.commission;
                units[trade.instrument] += trade.quantity;
            }
            cash -= units.iter().zip(&open).zip(&funding).map(|((q, o), rate)| q * o * rate).sum::<f64>();
            let value = cash + units.iter().zip(&next).map(|(q, c)| q * c).sum::<f64>();
            let book = cash.abs() + units.iter().zip(&next).map(|(q, c)| (q * c).abs()).sum::<f64>();
            scale = scale.max(book);
            assert!((ledger.equity() - value).abs() <= 1e-12 * scale, "{} and {value}", ledger.equity());
            let own: f64 = step.own_log_return.iter().map(|r| (r.exp() - 1.0) / count as f64).sum();
            let floored = step.own_log_return.iter().any(|r| *r <= MIN_RATIO.ln());
            if !floored && ledger.equity() > 0.0 {
                let rounding = 1e-12 * scale / ledger.equity();
                close_to(step.log_return.exp(), value / before, rounding);
                close_to(1.0 + own, value / before, rounding);
            }
            if step.bankrupt {
                assert!(value <= 1e3);
                bankruptcies += 1;
                break;
            }
            assert!(value > 1e3);
            close = next;
        }
    }
    assert!((5..55).contains(&bankruptcies), "bankrupt and solvent runs are both needed: {bankruptcies}");
}

#[test]
fn faults_are_named_and_change_nothing() {
    let mut ledger = Ledger::new(2, 100.0, 0.1, FREE).unwrap();
    let frozen = ledger.clone();
    let fine = [1.0, 1.0];
    let message = |result: Result<Step>| result.unwrap_err().to_string();
    assert!(
        message(ledger.step(&[1.0], &NextBar::new(&fine, &fine, &fine)))
            .contains("targets: expected 2 instruments, got 1")
    );
    assert!(
        message(ledger.step(&fine, &NextBar::new(&fine, &[1.0, 0.0], &fine)))
            .contains("open of instrument 1 is 0")
    );
    assert!(
        message(ledger.step(&fine, &NextBar::new(&[f64::NAN, 1.0], &fine, &fine)))
            .contains("last_close of instrument 0 is NaN")
    );
    assert!(
        message(ledger.step(&[1.0, f64::NAN], &NextBar::new(&fine, &fine, &fine)))
            .contains("target of instrument 1")
    );
    assert_eq!(ledger, frozen);
    assert!(Ledger::new(0, 1.0, 0.1, FREE).is_err());
    assert!(Ledger::new(1, 0.0, 0.1, FREE).is_err());
    assert!(Ledger::new(1, 1.0, 1.0, FREE).is_err());
    assert!(Ledger::new(1, 1.0, 0.1, Costs { commission_bps: -1.0, ..FREE }).is_err());
    assert!(Ledger::new(1, 1.0, 0.1, Costs { slippage_bps: f64::NAN, ..FREE }).is_err());
}

#[test]
fn commissions_have_a_part_per_unit_and_a_minimum() {
    let costs = Costs { commission_bps: 10.0, commission_per_unit: 0.01, min_commission: 1.5, ..FREE };
    // 100 units at 10: 1 of the value and 1 for the units.
    close_to(costs.commission(100.0, 10.0), 2.0, 1e-15);
    close_to(costs.commission(-10.0, 10.0), 1.5, 1e-15);
    assert_eq!(costs.commission(0.0, 10.0), 0.0, "no order, no commission");
}

#[test]
fn spreads_are_those_of_the_instrument() {
    let costs = Costs { slippage_bps: 10.0, spread_bps: vec![0.0, 40.0], ..FREE };
    let mut ledger = Ledger::new(2, 1000.0, 0.0, costs.clone()).unwrap();
    let step = ledger.step(&[1.0, -1.0], &NextBar::new(&[10.0; 2], &[10.0; 2], &[10.0; 2])).unwrap();
    close_to(step.trades[0].price, 10.01, 1e-15);
    close_to(step.trades[1].price, 9.97, 1e-15);
    close_to(step.trades[1].slippage, 50.0 * 0.03, 1e-13);
    let error = Ledger::new(3, 1000.0, 0.0, costs).unwrap_err().to_string();
    assert!(error.contains("`spread_bps`: 2 spreads for 3 instruments"), "{error}");
}

#[test]
fn rates_accrue_by_elapsed_time() {
    let costs = Costs { borrow_rate: 0.1, cash_rate: 0.02, margin_rate: 0.08, ..FREE };
    let mut ledger = Ledger::new(2, 1000.0, 0.0, costs).unwrap();
    let flat = [10.0, 20.0];
    let bar = |years| NextBar::new(&flat, &flat, &flat).years(years);
    // All cash at the decision: 2 % of 1000 for a tenth of a year.
    let step = ledger.step(&[1.0, -1.0], &bar(0.1)).unwrap();
    close_to(step.financing.interest, 2.0, 1e-14);
    close_to(ledger.equity(), 1002.0, 1e-14);
    assert_eq!(step.own_log_return[0], step.own_log_return[1]);
    // 500 long and 500 short: interest on 1002 - 500, borrowing of 500.
    let step = ledger.step(&[1.0, -1.0], &bar(0.5)).unwrap();
    close_to(step.financing.interest, 0.02 * 0.5 * 502.0, 1e-13);
    close_to(step.financing.borrow, 0.1 * 0.5 * 500.0, 1e-13);
    let earned = 0.02 * 0.5 * 502.0 - 25.0;
    close_to(ledger.equity(), 1002.0 + earned, 1e-14);
    // The first instrument has used 500 of its 501.
    close_to(step.own_log_return[0], (1.0_f64 + 2.0 * 0.01 * 1.0 / 1002.0).ln(), 1e-10);
    close_to(step.log_return, (1.0 + earned / 1002.0).ln(), 1e-10);
    assert_eq!(ledger.step(&[1.0, -1.0], &bar(0.0)).unwrap().financing, Financing::default());
    // Borrowed cash costs the margin rate.
    let mut ledger = ledger.with_max_leverage(Some(2.0)).unwrap();
    ledger.step(&[1.5, 1.6], &bar(0.0)).unwrap();
    let equity = ledger.equity();
    let step = ledger.step(&[1.5, 1.6], &bar(1.0)).unwrap();
    close_to(step.financing.interest, 0.08 * (equity - 0.5 * 3.1 * equity), 1e-13);
    for years in [-1.0, f64::NAN] {
        assert!(ledger.step(&[0.0; 2], &bar(years)).unwrap_err().to_string().contains("years pass"));
    }
}

#[test]
fn long_positions_pay_positive_funding_to_short_ones() {
    let mut ledger = Ledger::new(2, 1000.0, 0.0, FREE).unwrap();
    let flat = [10.0, 20.0];
    let bar = NextBar::new(&flat, &flat, &flat).funding(&[1e-3, 4e-3]);
    let step = ledger.step(&[1.0, -1.0], &bar).unwrap();
    close_to(step.financing.funding, 0.5 - 2.0, 1e-14);
    close_to(ledger.equity(), 1001.5, 1e-14);
    let error = ledger.step(&[0.0; 2], &bar.funding(&[f64::NAN, 0.0])).unwrap_err().to_string();
    assert!(error.contains("funding of instrument 0 is NaN"), "{error}");
}

#[test]
fn orders_are_cut_to_the_leverage_limit() {
    let flat = [10.0, 10.0];
    let bar = NextBar::new(&flat, &flat, &flat);
    let exposure = |ledger: &Ledger| ledger.quantity().iter().map(|q| q.abs() * 10.0).sum::<f64>();
    let mut ledger = Ledger::new(2, 1000.0, 0.0, FREE).unwrap().with_max_leverage(Some(1.2)).unwrap();
    // Wanted: 1000 long and 500 short. Both orders are cut by the same factor, 1200 / 1500.
    ledger.step(&[2.0, -1.0], &bar).unwrap();
    close_to(ledger.quantity()[0], 80.0, 1e-14);
    close_to(ledger.quantity()[1], -40.0, 1e-14);
    // The target counts as reached: nothing is traded when it stays.
    assert!(ledger.step(&[2.0, -1.0], &bar).unwrap().trades.is_empty());
    // A smaller position fills in full, and makes room for a larger one beside it.
    ledger.step(&[0.5, -1.8], &bar).unwrap();
    close_to(ledger.quantity()[0], 25.0, 1e-14);
    close_to(ledger.quantity()[1], -90.0, 1e-14);
    // An order beyond the limit trades nothing, and a change of sides counts with its whole new position.
    let mut full = Ledger::new(2, 1000.0, 0.0, FREE).unwrap().with_max_leverage(Some(1.0)).unwrap();
    full.step(&[2.0, 0.0], &bar).unwrap();
    let step = full.step(&[2.0, 1.0], &bar).unwrap();
    assert_eq!((step.trades.len(), full.quantity()[1]), (0, 0.0));
    full.step(&[-1.5, 1.0], &bar).unwrap();
    close_to(full.quantity()[0], -75.0, 1e-14);
    assert!(exposure(&full) <= 1000.0 + 1e-9);
    assert!(Ledger::new(1, 1.0, 0.0, FREE).unwrap().with_max_leverage(Some(0.0)).is_err());
}
