//! Numbers in the file.

use std::fmt::Write as _;

/// Appends the shortest decimal that parses to the same value. An oscillator is an f32. A price is the sum of an f32 and an
/// f64 close: it is rounded to 12 significant digits, since all further ones are rounding errors.
pub fn append_number(out: &mut String, value: f64, price: bool) -> std::fmt::Result {
    // `Display` never uses an exponent and would print many zeros for a tiny number.
    let tiny = value != 0.0 && value.abs() < 1e-5;
    if price {
        return append_price(out, value, tiny);
    }
    let value = value as f32;
    if tiny { write!(out, "{value:e}") } else { write!(out, "{value}") }
}

/// 12 significant digits without zeros at the end. So few digits are the shortest that parse to their value.
fn append_price(out: &mut String, value: f64, tiny: bool) -> std::fmt::Result {
    let start = out.len();
    write!(out, "{value:.11e}")?;
    let text = out.split_off(start);
    let parts =
        text.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    let Some((digits, exponent)) = parts else {
        // Infinite.
        out.push_str(&text);
        return Ok(());
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    out.push_str(sign);
    if tiny || !(-5..=11).contains(&exponent) {
        let point = if fraction.is_empty() { "" } else { "." };
        if tiny {
            return write!(out, "{whole}{point}{fraction}e{exponent}");
        }
        let rounded: f64 = text.trim_start_matches('-').parse().unwrap_or(value.abs());
        return write!(out, "{rounded}");
    }
    if let Ok(places @ 1..) = usize::try_from(-exponent) {
        out.push_str("0.");
        (1..places).for_each(|_| out.push('0'));
        out.push_str(whole);
        out.push_str(fraction);
        return Ok(());
    }
    let before = usize::try_from(exponent).unwrap_or(0);
    out.push_str(whole);
    match fraction.split_at_checked(before) {
        Some((before, after)) => {
            out.push_str(before);
            if !after.is_empty() {
                out.push('.');
                out.push_str(after);
            }
        }
        None => {
            out.push_str(fraction);
            (fraction.len()..before).for_each(|_| out.push('0'));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (50.0, false, "50"),
            (f64::from(0.1f32), false, "0.1"),
            (f64::from(-1.25e-7f32), false, "-1.25e-7"),
            (0.0, false, "0"),
            (100_000.123_456_789, true, "100000.123457"),
            (0.1 + 0.2, true, "0.3"),
        ];
        for (value, price, expected) in cases {
            assert_eq!(field(value, price), expected);
        }
    }

    fn field(value: f64, price: bool) -> String {
        let mut text = String::new();
        append_number(&mut text, value, price).unwrap();
        text
    }

    /// The digits of a price are those of the f64 that is nearest to its first twelve.
    #[test]
    fn prices_have_the_shortest_of_twelve_digits() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut cases = vec![
            1.0,
            10.0,
            123_456_789_012.0,
            1e11,
            1e12,
            999_999_999_999.5,
            1e-5,
            9.999_999_999_999e-6,
            0.1 + 0.2,
            0.0,
            1e300,
        ];
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let digits = (state >> 20) as f64 / f64::from(1 << 30);
            cases.push(digits * 10_f64.powi((state % 29) as i32 - 14));
            cases.push((digits.floor() / 100.0) * if state & 64 == 0 { 1.0 } else { -1.0 });
        }
        for value in cases {
            let rounded: f64 = format!("{value:.11e}").parse().unwrap();
            let tiny = value != 0.0 && value.abs() < 1e-5;
            let expected = if tiny { format!("{rounded:e}") } else { format!("{rounded}") };
            assert_eq!(field(value, true), expected);
        }
    }
}
