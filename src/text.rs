//! Text from files in messages: control characters are made visible, and long values are shortened.

use std::borrow::Cow;
use std::path::Path;

/// Characters of a value that are shown; of a longer one the start and the end.
const MOST_SHOWN: usize = 80;
/// Bytes of a path, a column and a reason that are shown. Together, with a line and what joins them, they stay below 2 KiB.
const MOST_PATH: usize = 400;
const MOST_COLUMN: usize = 240;
const MOST_REASON: usize = 1300;
/// Names of a list that are shown; the others are counted.
const MOST_NAMES: usize = 10;

/// Whether a character changes how text around it is shown, or shows nothing: controls, terminal escapes, marks of the direction of
/// writing, spaces without width.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn push_visible(out: &mut String, character: char) {
    if is_hidden(character) { out.extend(character.escape_default()) } else { out.push(character) }
}

/// `text` with hidden characters escaped as in Rust: `\n`, `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|character| push_visible(&mut out, character));
    out.into()
}

/// `text` with hidden characters escaped, but for the ends of lines.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    let acts = |character: char| is_hidden(character) && character != '\n';
    if !text.contains(acts) {
        return text.into();
    }
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    lines.join("\n").into()
}

/// A value from a file for a message: hidden characters are escaped, and a long value is shortened in the middle.
pub fn shown(text: &str) -> String {
    let tail = MOST_SHOWN / 2;
    let mut out = String::new();
    let cut = text.char_indices().nth(MOST_SHOWN).and_then(|_| {
        let (head_end, _) = text.char_indices().nth(MOST_SHOWN - tail)?;
        let (tail_start, _) = text.char_indices().rev().nth(tail - 1)?;
        Some((text.get(..head_end)?, text.get(head_end..tail_start)?, text.get(tail_start..)?))
    });
    let Some((head, middle, tail)) = cut else { return visible(text).into_owned() };
    head.chars().for_each(|character| push_visible(&mut out, character));
    out += &format!("...({} more characters)...", middle.chars().count());
    tail.chars().for_each(|character| push_visible(&mut out, character));
    out
}

/// A path for a message.
pub(crate) fn path(path: &Path) -> String {
    shortened(visible(&path.to_string_lossy()).into_owned(), MOST_PATH)
}

/// The name of a column for a message.
pub(crate) fn column(name: &str) -> String {
    shortened(shown(name), MOST_COLUMN)
}

/// A reason for a message: shortened in the middle, because it begins with what is wrong and ends with what to do. Its quotations are
/// [`shown`] already.
pub(crate) fn reason(text: String) -> String {
    shortened(text, MOST_REASON)
}

/// `text` in at most `most` bytes, of which 40 are for how much was left out in the middle.
pub fn shortened(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let half = most.saturating_sub(40) / 2;
    let head = (0..=half).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    let tail = (text.len() - half..=text.len()).find_map(|start| text.get(start..)).unwrap_or_default();
    format!("{head} [{} bytes] {tail}", text.len() - head.len() - tail.len())
}

/// Names for a message, each between these quotation marks: the first ones, and how many more there are.
pub(crate) fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>, quote: &str) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let first: Vec<String> =
        names.take(MOST_NAMES).map(|name| format!("{quote}{}{quote}", shown(name))).collect();
    let first = first.join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped() {
        for (text, expected) in [
            ("AAPL", "AAPL"),
            ("M\u{fc}nchen \u{4e2d}\u{6587} \u{1f600}", "M\u{fc}nchen \u{4e2d}\u{6587} \u{1f600}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("abc\u{202e}cba\u{200b}", "abc\\u{202e}cba\\u{200b}"),
            ("\u{feff}\u{2066}x", "\\u{feff}\\u{2066}x"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn long_values_are_shortened_in_the_middle() {
        let whole = "x".repeat(MOST_SHOWN);
        assert_eq!(shown(&whole), whole);
        let long = format!("{}{}", "\u{e4}".repeat(1_000_000), "z".repeat(100));
        let expected = format!("{}...(1000020 more characters)...{}", "\u{e4}".repeat(40), "z".repeat(40));
        assert_eq!(shown(&long), expected);
        let path = path(Path::new(&format!("/{}/\n.csv", "d".repeat(5000))));
        assert!(path.len() <= MOST_PATH && path.ends_with("ddd/\\n.csv"), "{path}");
        let text = reason(format!("wrong: {}; do this", "\u{4e2d}".repeat(5000)));
        assert!(text.len() <= MOST_REASON, "{}", text.len());
        assert!(text.starts_with("wrong: ") && text.ends_with("; do this"), "{text}");
    }

    #[test]
    fn lines_stay_and_what_is_left_out_is_counted() {
        assert_eq!(visible_lines("a\nb"), "a\nb");
        assert_eq!(visible_lines("a\u{1b}\nb\tc\u{200b}\n"), "a\\u{1b}\nb\\tc\\u{200b}\n");
        assert_eq!(shortened("x".repeat(100), 100), "x".repeat(100));
        assert_eq!(
            shortened("x".repeat(101), 100),
            format!("{} [41 bytes] {}", "x".repeat(30), "x".repeat(30))
        );
        for most in [0, 1, 40, 41, 2048] {
            let text = shortened("\u{e4}".repeat(1 << 20), most);
            assert!(text.len() <= most.max(40), "{most}: {text}");
        }
    }

    /// The longest place and the longest reason, all of it hidden.
    #[test]
    fn messages_have_at_most_two_kibibytes() {
        let hidden = || "\u{e007f}".repeat(5000);
        let candles = crate::Error::Candles {
            path: hidden().into(),
            line: Some(u64::MAX),
            column: Some(hidden()),
            reason: reason(visible(&hidden()).into_owned()),
        };
        let checkpoint = crate::Error::Checkpoint {
            path: hidden().into(),
            reason: reason(visible(&hidden()).into_owned()),
        };
        for error in [candles, checkpoint] {
            let text = error.to_string();
            assert!((1500..=2040).contains(&text.len()), "{}: {text}", text.len());
        }
    }

    #[test]
    fn long_lists_are_counted() {
        assert_eq!(list(["a", "b"].into_iter(), "`"), "`a`, `b`");
        assert_eq!(list(["x"; 13].into_iter(), ""), format!("{}x and 3 more", "x, ".repeat(9)));
    }
}
