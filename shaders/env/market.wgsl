// Advances all environments by one bar: orders decided after bar t fill at the open of t+1, or of the instrument's next real bar, and
// the account is marked to market at the close of t+1. One invocation owns one environment: one account, N instruments. The accounting equals env::ledger's.

import package::constants::WG;
import package::lib::account::{Exposure, Fees, Fill, accrue, affordable, expose, fill, interest_rate};
import package::lib::episode::{Moment, permit, settle};
import package::lib::numeric::{add_compensated, is_finite, log1p};
import package::lib::observe::show;
import package::lib::random::{threefry, unit};

struct Market {
    step: u32,
    steps: u32,
    envs: u32,
    agents: u32,
    features: u32,
    actions: u32,
    // 1: start a new episode in every environment, write slot 0, and do nothing else.
    reset: u32,
    // Episodes start from bar `first` on and last `length` steps, the last of them after bar `last`.
    first: u32,
    last: u32,
    length: u32,
    // Index of the first price in the data: [bar][instrument][gap, move, open, close]. Gap: open minus previous close;
    // move: close minus open. Open: 0 if the instrument has no bar of its own, so that its order waits.
    prices: u32,
    seed_low: u32,
    seed_high: u32,
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
    // Index of the years since the previous bar in the data, [bar].
    years: u32,
    // Index of the funding rates in the data, [bar][instrument]; 0: none.
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
    // 1: an action is a real number in (-1, 1), which is mapped to the levels from `lowest` to `highest`.
    weights: u32,
    lowest: f32,
    highest: f32,
    // Target level of each action, four per vec4.
    levels: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<uniform> p: Market;
@group(0) @binding(1) var<storage, read> actions: array<u32>;
@group(0) @binding(2) var<storage, read_write> rewards: array<f32>;
// u32, with floats stored as bits: a small counter stored in an f32 would be a denormal, which drivers may flush to 0.
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
// Binding 4: lib/observe; 5 and 6: lib/episode.
@group(0) @binding(7) var<storage, read> data: array<f32>;
// The bits of slippage and half the spread of each instrument, as a fraction of the open; then the number
// of bars at which episodes can start, the number of gaps between them, and for each gap the number of starts before it and of bars
// skipped up to it. All but the slippage is read where episodes start.
@group(0) @binding(8) var<storage, read> table: array<u32>;

// Fields of the state, `[field][env]`. Equity is in units of the starting equity and is a compensated sum: thousands of bars
// neither create nor lose money.
const EQUITY: u32 = 0u;
const EQUITY_REST: u32 = 1u;
const PEAK: u32 = 2u;
const RETURN: u32 = 3u;
const BAR: u32 = 4u;
const TAKEN: u32 = 5u;
const EPISODE: u32 = 6u;
// Episodes truncated in this rollout, for lib/episode.
const CUT: u32 = 7u;
const QUANTITY: u32 = 8u;

fn moment(env: u32) -> Moment {
    return Moment(env, p.envs, p.step, p.steps);
}

fn field(index: u32, env: u32) -> f32 {
    return bitcast<f32>(state[index * p.envs + env]);
}

fn set_field(index: u32, env: u32, value: f32) {
    state[index * p.envs + env] = bitcast<u32>(value);
}

fn count(index: u32, env: u32) -> u32 {
    return state[index * p.envs + env];
}

fn set_count(index: u32, env: u32, value: u32) {
    state[index * p.envs + env] = value;
}

fn level_field(agent: u32) -> u32 {
    return QUANTITY + p.agents + agent;
}

const GAP: u32 = 0u;
const MOVE: u32 = 1u;
const OPEN: u32 = 2u;
const CLOSE: u32 = 3u;

fn price_of(bar: u32, agent: u32, part: u32) -> f32 {
    return data[p.prices + (bar * p.agents + agent) * 4u + part];
}

// The bar at which the episode with this number among all starts begins.
fn start_of(offset: u32) -> u32 {
    var skipped = 0u;
    for (var gap = 0u; gap < table[p.agents + 1u]; gap++) {
        let at = p.agents + 2u + 2u * gap;
        skipped = select(skipped, table[at + 1u], offset >= table[at]);
    }
    return p.first + offset + skipped;
}

fn begin(env: u32) {
    let episode = count(EPISODE, env);
    let bits = threefry(vec2<u32>(p.seed_low, p.seed_high), vec2<u32>(episode, env));
    let starts = table[p.agents];
    let offset = min(u32(unit(bits.x) * f32(starts)), starts - 1u);
    set_field(EQUITY, env, 1.0);
    set_field(EQUITY_REST, env, 0.0);
    set_field(PEAK, env, 1.0);
    set_field(RETURN, env, 0.0);
    set_count(BAR, env, start_of(offset));
    set_count(TAKEN, env, 0u);
    set_count(EPISODE, env, episode + 1u);
    for (var a = 0u; a < p.agents; a++) {
        set_field(QUANTITY + a, env, 0.0);
        set_field(level_field(a), env, 0.0);
    }
}

// Writes the observation of every agent at the close of the current bar: the features of that bar, the agent's target level,
// and the weight of its position in its share of the account.
fn observe(env: u32, slot: u32) {
    let bar = count(BAR, env);
    let width = p.features + 2u;
    let equity = max(field(EQUITY, env), 1e-6);
    for (var a = 0u; a < p.agents; a++) {
        let at = (slot * p.agents + a) * width * p.envs + env;
        for (var f = 0u; f < p.features; f++) {
            show(at + f * p.envs, data[(bar * p.agents + a) * p.features + f]);
        }
        let price = price_of(bar, a, CLOSE);
        let weight = field(QUANTITY + a, env) * price * f32(p.agents) / equity;
        show(at + p.features * p.envs, field(level_field(a), env));
        show(at + (p.features + 1u) * p.envs, clamp(weight, -5.0, 5.0));
    }
}

fn allow(env: u32, slot: u32) {
    for (var a = 0u; a < p.agents; a++) {
        permit(moment(env), slot * p.agents + a, p.mask);
    }
}

// Target level of an agent's action. A number that is not finite counts as 0.
fn level_of(agent: u32, env: u32) -> f32 {
    let action = actions[(p.step * p.agents + agent) * p.envs + env];
    if (p.weights == 1u) {
        let a = bitcast<f32>(action);
        let share = 0.5 * select(0.0, clamp(a, -1.0, 1.0), is_finite(a)) + 0.5;
        return clamp(p.lowest + share * (p.highest - p.lowest), p.lowest, p.highest);
    }
    let choice = min(action, p.actions - 1u);
    return p.levels[choice / 4u][choice % 4u];
}

// Factor on the parts of the orders that raise the gross exposure, from the leverage limit.
fn order_factor(env: u32, next: u32, stake: f32) -> f32 {
    if (p.max_leverage == 0.0) {
        return 1.0;
    }
    var sum = Exposure(0.0, 0.0);
    for (var a = 0u; a < p.agents; a++) {
        let open = price_of(next, a, OPEN);
        // A filled bar has one price.
        let held = field(QUANTITY + a, env) * select(price_of(next, a, CLOSE), open, open > 0.0);
        let level = level_of(a, env);
        let trades = level != field(level_field(a), env) && open > 0.0;
        sum = expose(sum, held, select(held, level * stake, trades));
    }
    return affordable(sum, p.max_leverage * stake * f32(p.agents));
}

// Equity less the long positions, after `bar`.
fn cash_of(env: u32, bar: u32, equity: f32) -> f32 {
    var cash = equity;
    for (var a = 0u; a < p.agents; a++) {
        cash -= max(field(QUANTITY + a, env), 0.0) * price_of(bar, a, CLOSE);
    }
    return cash;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let env = id.x;
    if (env >= p.envs) {
        return;
    }
    if (p.reset == 1u) {
        set_count(EPISODE, env, 0u);
        begin(env);
        observe(env, 0u);
        allow(env, 0u);
        return;
    }
    // Clamped to the bars of episodes, because it is an index.
    let bar = clamp(count(BAR, env), p.first, p.last);
    let next = bar + 1u;
    let before = field(EQUITY, env);
    let number = f32(p.agents);

    // Sums changes of the account, not account values: prices enter as differences, which keeps f32 precise.
    var gaps = 0.0;
    for (var a = 0u; a < p.agents; a++) {
        gaps += field(QUANTITY + a, env) * price_of(next, a, GAP);
    }
    let stake = max(before + gaps, 0.0) / number;
    let factor = order_factor(env, next, stake);
    let fees = Fees(p.commission, p.commission_per_unit, p.min_commission);
    var interest = 0.0;
    if (p.accrues == 1u) {
        interest = interest_rate(cash_of(env, bar, before), data[p.years + next], p.cash_rate, p.margin_rate);
    }
    var change = gaps;
    for (var a = 0u; a < p.agents; a++) {
        let held = field(QUANTITY + a, env);
        let level = level_of(a, env);
        var order = Fill(held, 0.0);
        let price = price_of(next, a, OPEN);
        if (level != field(level_field(a), env) && price > 0.0) {
            order = fill(level * stake, held, price, factor, bitcast<f32>(table[a]), fees);
            set_field(QUANTITY + a, env, order.quantity);
            set_field(level_field(a), env, level);
        }
        let gap = held * price_of(next, a, GAP);
        var earned = order.quantity * price_of(next, a, MOVE) - order.cost;
        if (p.accrues == 1u) {
            let value = held * price_of(bar, a, CLOSE);
            earned = accrue(earned, value, before / number, interest, p.borrow_rate * data[p.years + next]);
            if (p.funding > 0u) {
                earned -= data[p.funding + next * p.agents + a] * order.quantity * price;
            }
        }
        change += earned;
        // The agent's own return; the portfolio's is mixed in below.
        let own = log1p(max(number * (gap + earned) / before, 1e-6 - 1.0));
        rewards[(p.step * p.agents + a) * p.envs + env] = own;
    }
    let sum = add_compensated(vec2<f32>(before, field(EQUITY_REST, env)), change, p.zero);
    let equity = sum.x;
    let peak = field(PEAK, env);
    let new_peak = max(peak, equity);
    let portfolio = log1p(max(change / before, 1e-6 - 1.0));
    let deeper = max((1.0 - equity / new_peak) - (1.0 - before / peak), 0.0);
    var mean_reward = 0.0;
    for (var a = 0u; a < p.agents; a++) {
        let at = (p.step * p.agents + a) * p.envs + env;
        let mixed = p.own_weight * rewards[at] + (1.0 - p.own_weight) * portfolio;
        let reward = p.reward_scale * (mixed - p.drawdown_penalty * deeper);
        rewards[at] = reward;
        mean_reward += reward / number;
    }
    let taken = count(TAKEN, env) + 1u;
    let total = field(RETURN, env) + mean_reward;
    set_field(EQUITY, env, equity);
    set_field(EQUITY_REST, env, sum.y);
    set_field(PEAK, env, new_peak);
    set_field(RETURN, env, total);
    set_count(BAR, env, next);
    set_count(TAKEN, env, taken);

    let bankrupt = equity <= p.bankruptcy;
    // Clamped to the number of slots for truncated episodes.
    let cut = min(count(CUT, env), (p.steps - 1u) / p.length);
    let end = settle(moment(env), taken, total, cut, bankrupt, taken >= p.length);
    set_count(CUT, env, end.cut);
    if (end.truncated) {
        observe(env, end.slot);
    }
    if (end.over) {
        begin(env);
    }
    observe(env, p.step + 1u);
    allow(env, p.step + 1u);
}
