// Advances a market by one bar: orders decided after bar t fill at the open of t+1, or of the instrument's next real bar, and the
// account is marked to market at the close of t+1. One account, N instruments, each of which is an agent. The accounting equals
// env::ledger's. The functions of an env::DeviceEnv.

import package::lib::account::{Exposure, Fees, Fill, accrue, affordable, expose, fill, interest_rate};
import package::lib::numeric::{add_compensated, is_finite, log1p};

struct Parameters {
    features: u32,
    // Episodes start from bar `first` on, and the latest of them take their last step after bar `last`.
    first: u32,
    last: u32,
    // Index of the first price in the candles: [bar][instrument][gap, move, open, close]. Gap: open minus previous close;
    // move: close minus open. Open: 0 if the instrument has no bar of its own, so that its order waits.
    prices: u32,
    commission: f32,
    commission_per_unit: f32,
    // Least commission of an order. Amounts are in units of the starting equity.
    min_commission: f32,
    // Largest gross exposure that orders may lead to, in units of the equity; 0: no limit.
    max_leverage: f32,
    // Rates a year on short positions, on cash, and on borrowed cash.
    borrow_rate: f32,
    cash_rate: f32,
    margin_rate: f32,
    // 1: one of these rates is not 0, or there are funding rates.
    accrues: u32,
    // Index of the years since the previous bar in the candles, [bar].
    years: u32,
    // Index of the funding rates in the candles, [bar][instrument]; 0: none.
    funding: u32,
    // Equity, as a fraction of the starting equity, at which an account is closed.
    bankruptcy: f32,
    own_weight: f32,
    reward_scale: f32,
    drawdown_penalty: f32,
    // Allowed actions, one bit each.
    mask: u32,
    // 0: see add_compensated.
    zero: u32,
    // Levels to which a continuous action, a real number in (-1, 1), is mapped.
    lowest: f32,
    highest: f32,
    // Target level of each discrete action, four per vec4.
    levels: array<vec4<f32>, 8>,
}

// Equity is in units of the starting equity and is a compensated sum: thousands of bars neither create nor lose money.
struct State {
    equity: f32,
    equity_rest: f32,
    peak: f32,
    bar: u32,
}

struct AgentState {
    // Units held of the instrument.
    quantity: f32,
    // Target level of the last order that was filled.
    level: f32,
}

const GAP: u32 = 0u;
const MOVE: u32 = 1u;
const OPEN: u32 = 2u;
const CLOSE: u32 = 3u;

fn price_of(bar: u32, agent: u32, part: u32) -> f32 {
    return candles(parameters.prices + (bar * AGENTS + agent) * 4u + part);
}

// The table has the bits of slippage and half the spread of each instrument, as a fraction of the open; then the number of bars at
// which episodes can start, the number of gaps between them, and for each gap the number of starts before it and of bars skipped
// up to it.
fn slippage(agent: u32) -> f32 {
    return bitcast<f32>(table(agent));
}

// The bar at which the episode with this number among all starts begins.
fn start_of(offset: u32) -> u32 {
    var skipped = 0u;
    for (var gap = 0u; gap < table(AGENTS + 1u); gap++) {
        let at = AGENTS + 2u + 2u * gap;
        skipped = select(skipped, table(at + 1u), offset >= table(at));
    }
    return parameters.first + offset + skipped;
}

fn reset() {
    let starts = table(AGENTS);
    let offset = min(u32(random_at(episode()).x * f32(starts)), starts - 1u);
    state.equity = 1.0;
    state.peak = 1.0;
    state.bar = start_of(offset);
}

// At the close of the current bar: the features of that bar, the agent's target level, and the weight of its position in its share
// of the account.
fn observe(agent: u32) {
    let first = (state.bar * AGENTS + agent) * parameters.features;
    for (var f = 0u; f < parameters.features; f++) {
        feature(f, candles(first + f));
    }
    let weight = get_quantity(agent) * price_of(state.bar, agent, CLOSE) * f32(agents()) / max(state.equity, 1e-6);
    feature(parameters.features, get_level(agent));
    feature(parameters.features + 1u, clamp(weight, -5.0, 5.0));
}

fn action_mask(agent: u32) -> u32 {
    return parameters.mask;
}

// Target level of an agent's action. A number that is not finite counts as 0.
@if(continuous)
fn level_of(agent: u32) -> f32 {
    let a = real(agent, 0u);
    let share = 0.5 * select(0.0, clamp(a, -1.0, 1.0), is_finite(a)) + 0.5;
    let level = parameters.lowest + share * (parameters.highest - parameters.lowest);
    return clamp(level, parameters.lowest, parameters.highest);
}

@if(!continuous)
fn level_of(agent: u32) -> f32 {
    let chosen = min(action(agent), ACTIONS - 1u);
    return parameters.levels[chosen / 4u][chosen % 4u];
}

// Factor on the parts of the orders that raise the gross exposure, from the leverage limit.
fn order_factor(next: u32, stake: f32) -> f32 {
    if (parameters.max_leverage == 0.0) {
        return 1.0;
    }
    var sum = Exposure(0.0, 0.0);
    for (var a = 0u; a < agents(); a++) {
        let open = price_of(next, a, OPEN);
        // A filled bar has one price.
        let held = get_quantity(a) * select(price_of(next, a, CLOSE), open, open > 0.0);
        let level = level_of(a);
        let trades = level != get_level(a) && open > 0.0;
        sum = expose(sum, held, select(held, level * stake, trades));
    }
    return affordable(sum, parameters.max_leverage * stake * f32(agents()));
}

// Equity less the long positions, after `bar`.
fn cash_of(bar: u32, equity: f32) -> f32 {
    var cash = equity;
    for (var a = 0u; a < agents(); a++) {
        cash -= max(get_quantity(a), 0.0) * price_of(bar, a, CLOSE);
    }
    return cash;
}

fn step() -> Outcome {
    // Clamped to the bars of episodes, because it is an index.
    let bar = clamp(state.bar, parameters.first, parameters.last);
    let next = bar + 1u;
    let before = state.equity;
    let number = f32(agents());

    // Sums changes of the account, not account values: prices enter as differences, which keeps f32 precise.
    var gaps = 0.0;
    for (var a = 0u; a < agents(); a++) {
        gaps += get_quantity(a) * price_of(next, a, GAP);
    }
    let stake = max(before + gaps, 0.0) / number;
    let factor = order_factor(next, stake);
    let fees = Fees(parameters.commission, parameters.commission_per_unit, parameters.min_commission);
    var interest = 0.0;
    if (parameters.accrues == 1u) {
        let years = candles(parameters.years + next);
        interest = interest_rate(cash_of(bar, before), years, parameters.cash_rate, parameters.margin_rate);
    }
    var change = gaps;
    for (var a = 0u; a < agents(); a++) {
        let held = get_quantity(a);
        let level = level_of(a);
        var order = Fill(held, 0.0);
        let price = price_of(next, a, OPEN);
        if (level != get_level(a) && price > 0.0) {
            order = fill(level * stake, held, price, factor, slippage(a), fees);
            set_quantity(a, order.quantity);
            set_level(a, level);
        }
        let gap = held * price_of(next, a, GAP);
        var earned = order.quantity * price_of(next, a, MOVE) - order.cost;
        if (parameters.accrues == 1u) {
            let value = held * price_of(bar, a, CLOSE);
            let borrow = parameters.borrow_rate * candles(parameters.years + next);
            earned = accrue(earned, value, before / number, interest, borrow);
            if (parameters.funding > 0u) {
                earned -= candles(parameters.funding + next * AGENTS + a) * order.quantity * price;
            }
        }
        change += earned;
        // The agent's own return; the portfolio's is mixed in below.
        reward(a, log1p(max(number * (gap + earned) / before, 1e-6 - 1.0)));
    }
    let sum = add_compensated(vec2<f32>(before, state.equity_rest), change, parameters.zero);
    let equity = sum.x;
    let peak = max(state.peak, equity);
    let portfolio = log1p(max(change / before, 1e-6 - 1.0));
    let deeper = max((1.0 - equity / peak) - (1.0 - before / state.peak), 0.0);
    var mean = 0.0;
    for (var a = 0u; a < agents(); a++) {
        let mixed = parameters.own_weight * reward_of(a) + (1.0 - parameters.own_weight) * portfolio;
        let scaled = parameters.reward_scale * (mixed - parameters.drawdown_penalty * deeper);
        reward(a, scaled);
        mean += scaled / number;
    }
    mean_reward(mean);
    state.equity = equity;
    state.equity_rest = sum.y;
    state.peak = peak;
    state.bar = next;
    return select(CONTINUES, TERMINATED, equity <= parameters.bankruptcy);
}
