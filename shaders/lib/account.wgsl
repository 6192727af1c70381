// The rules of an account that holds N instruments, over one bar; env::ledger has the formulas. The functions take and return values:
// every kernel keeps its positions and prices in its own way.

// Costs of orders. Amounts are in units of the starting equity.
struct Fees {
    // As a fraction of the value at the fill price.
    commission: f32,
    per_unit: f32,
    // Least commission of an order.
    minimum: f32,
}

// Gross exposure after all orders, summed over the instruments: the part that they leave in place, and the part that they add.
struct Exposure {
    kept: f32,
    added: f32,
}

// A filled order: units held after it, and its cost.
struct Fill {
    quantity: f32,
    cost: f32,
}

// Part of an exposure that an order leaves in place; 0 if it changes sides.
fn kept_part(held: f32, wanted: f32) -> f32 {
    return select(0.0, min(abs(held), abs(wanted)), held * wanted > 0.0);
}

// Adds an instrument, by the values held and wanted; they are equal if it does not trade.
fn expose(sum: Exposure, held: f32, wanted: f32) -> Exposure {
    let part = kept_part(held, wanted);
    return Exposure(sum.kept + part, sum.added + (abs(wanted) - part));
}

// Factor on the parts of the orders that raise the gross exposure, which may reach `most`.
fn affordable(sum: Exposure, most: f32) -> f32 {
    let room = most - sum.kept;
    // Without an order that raises the exposure there is nothing to cut, even above the limit.
    if (sum.added == 0.0 || sum.added <= room) {
        return 1.0;
    }
    let factor = max(room, 0.0) / sum.added;
    return select(factor, 0.0, factor < 1e-6);
}

// Units to hold for the value `wanted`, of which the part beyond the value held is multiplied by `factor`, which is below 1.
fn cut(wanted: f32, held: f32, price: f32, factor: f32) -> f32 {
    let kept = kept_part(held * price, wanted);
    if (abs(wanted) <= kept) {
        return wanted / price;
    }
    if (kept > 0.0) {
        return held + sign(wanted) * factor * (abs(wanted) - kept) / price;
    }
    return factor * wanted / price;
}

// Fills the order for the value `wanted` at an open of `price`; `slip` is the slippage and half the spread as a fraction of it.
fn fill(wanted: f32, held: f32, price: f32, factor: f32, slip: f32, fees: Fees) -> Fill {
    var quantity = wanted / price;
    if (factor < 1.0) {
        quantity = cut(wanted, held, price, factor);
    }
    let traded = quantity - held;
    let filled = price * (1.0 + sign(traded) * slip);
    var cost = abs(traded) * (price * slip + filled * fees.commission);
    if (fees.per_unit > 0.0 || fees.minimum > 0.0) {
        let commission = abs(traded) * (filled * fees.commission + fees.per_unit);
        cost = abs(traded) * price * slip + select(0.0, max(commission, fees.minimum), traded != 0.0);
    }
    return Fill(quantity, cost);
}

// Interest on one unit of the account's cash over `years`: its equity less its long positions. Rates are a year's.
fn interest_rate(cash: f32, years: f32, cash_rate: f32, margin_rate: f32) -> f32 {
    return years * select(margin_rate, cash_rate, cash > 0.0);
}

// `earned` by an instrument, with what its position of `value` at the decision accrues: interest on its share of the equity, less the
// value of a long position, and the fee for a borrowed one. The rates are those of the bar.
fn accrue(earned: f32, value: f32, share: f32, interest: f32, borrow: f32) -> f32 {
    return earned + interest * (share - max(value, 0.0)) - borrow * max(-value, 0.0);
}
