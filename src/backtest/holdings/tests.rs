use super::*;
use crate::env::ledger::Financing;

/// A bar on which units change from `before` to the given ones; prices rise by 1 in the gap and by 2 in the session.
fn part(before: f64, units: f64, cost: f64) -> Contribution {
    Contribution {
        units,
        gap: before,
        session: 2.0 * units,
        commission: cost,
        slippage: 0.0,
        financing: Financing { borrow: 0.25 * (-before).max(0.0), interest: 7.0, funding: 0.5 * units },
    }
}

#[test]
fn by_hand() {
    let mut holdings = Holdings::new(2);
    let flat = Contribution::default();
    holdings.step(1, &[part(0.0, 2.0, 1.0), flat], false);
    // Larger, then smaller: the same position.
    holdings.step(2, &[part(2.0, 3.0, 1.0), part(0.0, -1.0, 0.5)], false);
    holdings.step(3, &[part(3.0, 1.0, 1.0), part(-1.0, -1.0, 0.0)], false);
    // Reversed: a quarter of the costs closed the old position.
    holdings.step(4, &[part(1.0, -3.0, 4.0), part(-1.0, 0.0, 0.5)], false);
    holdings.step(5, &[part(-3.0, -3.0, 0.0), flat], false);
    let all = holdings.finish(6);
    let first = Holding {
        instrument: 0,
        long: true,
        opened: 1,
        closed: Some(4),
        bars: 3,
        profit: (4.0 - 1.0 - 1.0) + (2.0 + 6.0 - 1.0 - 1.5) + (3.0 + 2.0 - 1.0 - 0.5) + (1.0 - 1.0),
    };
    let second = Holding {
        instrument: 1,
        long: false,
        opened: 2,
        closed: Some(4),
        bars: 2,
        profit: (-2.0 - 0.5 + 0.5) + (-1.0 - 2.0 - 0.25 + 0.5) + (-1.0 - 0.25 - 0.5),
    };
    let third = Holding {
        instrument: 0,
        long: false,
        opened: 4,
        closed: None,
        bars: 2,
        profit: (-6.0 - 3.0 + 1.5) + (-3.0 - 6.0 - 0.75 + 1.5),
    };
    assert_eq!(all, [first, second, third]);
    let times = HoldingTimes::new(&all);
    assert_eq!((times.count, times.open), (3, 1));
    assert_eq!(
        (times.median_bars, times.mean_bars, times.longest_bars),
        (Some(2.0), Some(7.0 / 3.0), Some(3))
    );
    assert_eq!(times.winners, Some(1.0 / 3.0));
    assert_eq!(HoldingTimes::new(&all[..2]).median_bars, Some(2.5));
}

#[test]
fn a_bankrupt_account_closes_everything_at_the_close() {
    let mut holdings = Holdings::new(1);
    holdings.step(1, &[part(0.0, -2.0, 0.0)], false);
    holdings.step(2, &[part(-2.0, -2.0, 0.0)], true);
    holdings.step(3, &[Contribution::default()], true);
    let [holding] = holdings.finish(4)[..] else { panic!("one position") };
    assert_eq!((holding.closed, holding.bars), (Some(2), 2));
    // Opened on the bar of the ruin itself.
    let mut holdings = Holdings::new(1);
    holdings.step(1, &[part(0.0, -2.0, 0.0)], true);
    let [holding] = holdings.finish(9)[..] else { panic!("one position") };
    assert_eq!((holding.opened, holding.closed, holding.bars, holding.profit), (1, Some(1), 1, -3.0));
}

#[test]
fn nothing_held() {
    let mut holdings = Holdings::new(1);
    holdings.step(1, &[Contribution::default()], false);
    assert!(HoldingTimes::new(&holdings.finish(2)) == HoldingTimes::default());
}
