//! Symbols of instruments: what they may contain, and how they are written to tables.

use crate::text::{is_hidden, shown};
use std::borrow::Cow;

/// Bytes of a symbol: as many as of a file name.
const MOST_BYTES: usize = 255;

/// Checks a symbol, which goes to file names, tables and terminals. `remedy` is what to do about an invisible character.
///
/// # Errors
/// A message that quotes the symbol.
pub(super) fn check_symbol(symbol: &str, remedy: &str) -> Result<(), String> {
    if symbol.trim().is_empty() {
        return Err("the symbol is empty; every row needs a symbol".into());
    }
    if symbol.contains(is_hidden) {
        return Err(format!(
            "the symbol `{}` has a control character or another one that is not visible; {remedy}",
            shown(symbol)
        ));
    }
    if symbol.len() > MOST_BYTES {
        return Err(format!(
            "the symbol `{}` has {} bytes; it may have {MOST_BYTES}: shorten it, or name the column of symbols `symbol`",
            shown(symbol),
            symbol.len()
        ));
    }
    Ok(())
}

/// A symbol for a cell of a CSV file. A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@` as a formula: such a symbol gets an
/// apostrophe before it, as [OWASP](https://owasp.org/www-community/attacks/CSV_Injection) recommends.
///
/// ```
/// use phalanx::market::symbol_cell;
///
/// assert_eq!(symbol_cell("=HYPERLINK(A1)"), "'=HYPERLINK(A1)");
/// assert_eq!(symbol_cell("^GSPC"), "^GSPC");
/// ```
#[must_use]
pub fn symbol_cell(symbol: &str) -> Cow<'_, str> {
    let formula = symbol.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula { format!("'{symbol}").into() } else { symbol.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_visible_and_short() {
        for symbol in
            ["AAPL", "BTC/USD", "BRK B", "^GSPC", "=F", "\u{8d35}\u{5dde}\u{8305}\u{53f0}", &"x".repeat(255)]
        {
            assert_eq!(check_symbol(symbol, ""), Ok(()));
        }
        for (symbol, expected) in [
            ("A\u{1b}[2J", "`A\\u{1b}[2J` has a control character"),
            ("A\nB", "`A\\nB` has a control character"),
            ("A\u{202e}B", "`A\\u{202e}B` has a control character"),
            ("A\0", "`A\\u{0}` has a control character"),
            (" ", "the symbol is empty"),
            (&"x".repeat(256), "has 256 bytes; it may have 255"),
        ] {
            let reason = check_symbol(symbol, "remove it").expect_err(expected);
            assert!(reason.contains(expected) && reason.len() < 300, "{reason}");
        }
    }

    #[test]
    fn cells_are_no_formulas() {
        for text in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(symbol_cell(text), format!("'{text}"));
        }
        for text in ["AAPL", "^GSPC", "BRK-B", "A=X", "'=1", ""] {
            assert_eq!(symbol_cell(text), text);
        }
    }
}
