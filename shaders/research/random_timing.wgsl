// Advances accounts that trade the same target positions, each at other times: draw d takes at decision t the targets of decision
// t + shift_d, around the end. One invocation owns one account and plays the decisions from `first` to `end`. The accounting is
// lib/account's, in units of the starting equity.

import package::constants::{ROW, WG};
import package::lib::account::{Exposure, Fees, Fill, accrue, affordable, expose, fill, interest_rate};
import package::lib::numeric::add_compensated;

struct Timing {
    // Decisions in all: one less than bars.
    decisions: u32,
    instruments: u32,
    draws: u32,
    // The decisions of this dispatch, `end` excluded. Accounts are opened at decision 0.
    first: u32,
    end: u32,
    commission: f32,
    commission_per_unit: f32,
    // Least commission of an order.
    min_commission: f32,
    // Largest gross exposure that orders may lead to, in units of the equity; 0: no limit.
    max_leverage: f32,
    // Rates a year on short positions, on cash, and on borrowed cash.
    borrow_rate: f32,
    cash_rate: f32,
    margin_rate: f32,
    // 1: one of these rates is not 0, or there are funding rates.
    accrues: u32,
    // 1: the rates hold those of funding.
    funded: u32,
    // Equity at which an account is closed.
    bankruptcy: f32,
    // 0: see add_compensated.
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Timing;
// Gap, move, open (0 at a filled bar, where orders wait) and close, [bar][instrument].
@group(0) @binding(1) var<storage, read> prices: array<vec4<f32>>;
// Slippage and half the spread, as a fraction of the open, [instrument]; years since the previous bar, [bar]; then funding rates,
// [bar][instrument], if there are any.
@group(0) @binding(2) var<storage, read> rates: array<f32>;
// Bits of the target, and a number that is equal for equal targets only and 0 for a target of 0, [decision][instrument].
@group(0) @binding(3) var<storage, read> targets: array<vec2<u32>>;
// Decisions by which a draw is shifted, below `decisions`, [draw].
@group(0) @binding(4) var<storage, read> shifts: array<u32>;
// Bits of the units held, and the number of the target that was reached, [instrument][draw].
@group(0) @binding(5) var<storage, read_write> positions: array<vec2<u32>>;
// [field][draw].
@group(0) @binding(6) var<storage, read_write> accounts: array<f32>;

// The equity, a compensated sum.
const EQUITY: u32 = 0u;
const EQUITY_REST: u32 = 1u;
// Compensated sums of the returns of a bar and of their squares.
const RETURNS: u32 = 2u;
const RETURNS_REST: u32 = 3u;
const SQUARES: u32 = 4u;
const SQUARES_REST: u32 = 5u;
// Smallest distance of the equity from the level at which the account is closed, in units of the equity one bar earlier.
const NEAREST: u32 = 6u;
// 1: the account is closed.
const CLOSED: u32 = 7u;
// Change of the equity up to the next open, and value of the long positions, at the last close.
const GAPS: u32 = 8u;
const LONGS: u32 = 9u;

const GAP: u32 = 0u;
const MOVE: u32 = 1u;
const OPEN: u32 = 2u;
const CLOSE: u32 = 3u;

fn field(index: u32, draw: u32) -> f32 {
    return accounts[index * p.draws + draw];
}

fn set_field(index: u32, draw: u32, value: f32) {
    accounts[index * p.draws + draw] = value;
}

// Factor on the parts of the orders that raise the gross exposure, from the leverage limit. `targets_at` and `bar` are indices of the
// first target and of the first price.
fn order_factor(draw: u32, targets_at: u32, bar: u32, stake: f32) -> f32 {
    if (p.max_leverage == 0.0) {
        return 1.0;
    }
    var sum = Exposure(0.0, 0.0);
    for (var i = 0u; i < p.instruments; i++) {
        let price = prices[bar + i];
        let position = positions[i * p.draws + draw];
        let wanted = targets[targets_at + i];
        // A filled bar has one price.
        let held = bitcast<f32>(position.x) * select(price[CLOSE], price[OPEN], price[OPEN] > 0.0);
        let trades = wanted.y != position.y && price[OPEN] > 0.0;
        sum = expose(sum, held, select(held, bitcast<f32>(wanted.x) * stake, trades));
    }
    return affordable(sum, p.max_leverage * stake * f32(p.instruments));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let draw = id.y * ROW + id.x;
    if (draw >= p.draws) {
        return;
    }
    var equity = vec2<f32>(1.0, 0.0);
    var returns = vec2<f32>(0.0, 0.0);
    var squares = vec2<f32>(0.0, 0.0);
    var nearest = 1.0;
    var gaps = 0.0;
    var longs = 0.0;
    var closed = false;
    if (p.first > 0u) {
        equity = vec2<f32>(field(EQUITY, draw), field(EQUITY_REST, draw));
        returns = vec2<f32>(field(RETURNS, draw), field(RETURNS_REST, draw));
        squares = vec2<f32>(field(SQUARES, draw), field(SQUARES_REST, draw));
        nearest = field(NEAREST, draw);
        gaps = field(GAPS, draw);
        longs = field(LONGS, draw);
        closed = field(CLOSED, draw) > 0.0;
    }
    let fees = Fees(p.commission, p.commission_per_unit, p.min_commission);
    let number = f32(p.instruments);
    var source = (p.first + shifts[draw]) % p.decisions;
    for (var decision = p.first; decision < p.end && !closed; decision++) {
        let before = equity.x;
        // Indices of the first price of the bar decided after, of the next, and of the one after that, whose gaps are known then.
        let last = decision * p.instruments;
        let bar = last + p.instruments;
        let after = min(decision + 2u, p.decisions) * p.instruments;
        let wanted_at = source * p.instruments;
        let stake = max(before + gaps, 0.0) / number;
        let factor = order_factor(draw, wanted_at, bar, stake);
        var interest = 0.0;
        var borrow = 0.0;
        if (p.accrues == 1u) {
            let years = rates[p.instruments + decision + 1u];
            interest = interest_rate(before - longs, years, p.cash_rate, p.margin_rate);
            borrow = p.borrow_rate * years;
        }
        var change = gaps;
        gaps = 0.0;
        longs = 0.0;
        for (var i = 0u; i < p.instruments; i++) {
            let at = i * p.draws + draw;
            let wanted = targets[wanted_at + i];
            let position = positions[at];
            let price = prices[bar + i];
            let next_gap = prices[after + i][GAP];
            let held = bitcast<f32>(position.x);
            var order = Fill(held, 0.0);
            if (wanted.y != position.y && price[OPEN] > 0.0) {
                order = fill(bitcast<f32>(wanted.x) * stake, held, price[OPEN], factor, rates[i], fees);
                positions[at] = vec2<u32>(bitcast<u32>(order.quantity), wanted.y);
            }
            var earned = order.quantity * price[MOVE] - order.cost;
            if (p.accrues == 1u) {
                let value = held * prices[last + i][CLOSE];
                earned = accrue(earned, value, before / number, interest, borrow);
                if (p.funded == 1u) {
                    let funding = rates[p.instruments + p.decisions + 1u + bar + i];
                    earned -= funding * order.quantity * price[OPEN];
                }
            }
            change += earned;
            gaps += order.quantity * next_gap;
            longs += max(order.quantity, 0.0) * price[CLOSE];
        }
        equity = add_compensated(equity, change, p.zero);
        let gained = change / before;
        returns = add_compensated(returns, gained, p.zero);
        squares = add_compensated(squares, gained * gained, p.zero);
        nearest = min(nearest, abs(equity.x - p.bankruptcy) / before);
        closed = equity.x <= p.bankruptcy;
        source = select(source + 1u, 0u, source + 1u == p.decisions);
    }
    set_field(EQUITY, draw, equity.x);
    set_field(EQUITY_REST, draw, equity.y);
    set_field(RETURNS, draw, returns.x);
    set_field(RETURNS_REST, draw, returns.y);
    set_field(SQUARES, draw, squares.x);
    set_field(SQUARES_REST, draw, squares.y);
    set_field(NEAREST, draw, nearest);
    set_field(CLOSED, draw, select(0.0, 1.0, closed));
    set_field(GAPS, draw, gaps);
    set_field(LONGS, draw, longs);
}
