//! Notation of numbers in a file, and of missing ones.

use crate::text::shown;

/// Spellings of a missing value; case is ignored.
const MISSING: &[&str] = &["", "null", "nan", "none", "na", "n/a", "#n/a", "<na>", "-"];

/// Whether a trimmed field holds no value.
pub(super) fn is_missing(text: &str) -> bool {
    MISSING.iter().any(|spelling| text.eq_ignore_ascii_case(spelling))
}

/// Parses the numbers of one file, which all have the same decimal mark.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Whether a comma can be the decimal mark: where it separates no fields and, by the habits of spreadsheets, only beside semicolons.
    comma: bool,
    /// The decimal mark of the first number that has one.
    mark: Option<char>,
}

impl Numbers {
    pub fn new(delimiter: u8) -> Self {
        Self { comma: delimiter == b';', mark: None }
    }

    pub fn decimal_comma(&self) -> bool {
        self.mark == Some(',')
    }

    /// Parses a trimmed field; the error says what is wrong and what is accepted.
    pub fn parse(&mut self, text: &str) -> Result<f64, String> {
        if !self.comma {
            return text.parse().map_err(|_| refusal(text));
        }
        let Some(mark) = text.chars().find(|it| matches!(it, '.' | ',')) else {
            return text.parse().map_err(|_| refusal(text));
        };
        let expected = *self.mark.get_or_insert(mark);
        if mark != expected {
            return Err(format!(
                "`{}` has a decimal `{mark}`, but numbers before it have `{expected}`; use one of them in the whole file, \
                 and none for thousands",
                shown(text)
            ));
        }
        if mark == ',' { text.replacen(',', ".", 1).parse() } else { text.parse() }.map_err(|_| refusal(text))
    }
}

fn refusal(text: &str) -> String {
    const RULE: &str = "every bar needs a number in this column (rows without any price are dropped)";
    match text {
        "" => format!("the field is empty; {RULE}"),
        _ if is_missing(text) => format!("`{text}` stands for no value; {RULE}"),
        _ => format!("`{}` is not a number; write it like 1234.5 or 1.2345e3", shown(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_marks() {
        let mut numbers = Numbers::new(b';');
        assert_eq!(numbers.parse("12"), Ok(12.0));
        assert_eq!(numbers.parse("12,5"), Ok(12.5));
        assert!(numbers.decimal_comma());
        assert!(numbers.parse("1,234,5").is_err());
        assert!(numbers.parse("12.5").is_err_and(|reason| reason.contains("decimal `.`")));
        assert!(numbers.parse("1.234,5").is_err());

        let mut numbers = Numbers::new(b';');
        assert_eq!(numbers.parse("12.5"), Ok(12.5));
        assert!(numbers.parse("12,5").is_err());
        for delimiter in [b',', b'\t'] {
            assert!(Numbers::new(delimiter).parse("12,5").is_err(), "could be thousands");
        }
    }

    #[test]
    fn missing_values() {
        assert!(["", "null", "NaN", "N/A", "None", "<NA>"].into_iter().all(is_missing));
        assert!(!["0", "1e3", "inf", "nil"].into_iter().any(is_missing));
    }
}
