//! Character between the fields of a file.

/// The accepted delimiters; of equally frequent ones the first.
const DELIMITERS: &[u8] = b",;\t|";

/// Starts of lines that may precede the header: the address of the source, a comment, Excel's hint at the delimiter.
const PREAMBLES: &[&str] = &["http://", "https://", "www.", "#", "sep="];

/// Whether a line before the header holds no column names.
pub(super) fn is_preamble(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches('"');
    PREAMBLES.iter().any(|start| line.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start)))
}

/// The most frequent delimiter on the first of these lines that has one and is no preamble, outside of quotes.
pub(super) fn delimiter(head: &[u8]) -> Option<u8> {
    head.split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !std::str::from_utf8(line).is_ok_and(is_preamble))
        .find_map(most_frequent)
}

fn most_frequent(line: &[u8]) -> Option<u8> {
    let count = |delimiter: u8| {
        let mut quoted = false;
        let outside = line.iter().filter(|byte| {
            quoted ^= **byte == b'"';
            !quoted && **byte == delimiter
        });
        outside.count()
    };
    // Reversed, because `max_by_key` returns the last maximum.
    let counts = DELIMITERS.iter().rev().map(|delimiter| (*delimiter, count(*delimiter)));
    counts.max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0).map(|(delimiter, _)| delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters() {
        for (head, expected) in [
            ("date,open", Some(b',')),
            ("date;open;high", Some(b';')),
            ("date\topen", Some(b'\t')),
            ("date|open", Some(b'|')),
            ("date", None),
            ("", None),
            ("\"a,b,c,d\";open", Some(b';')),
            ("\n\r\n a;b\nx,y,z", Some(b';')),
            ("https://example.com/?a=1,2,3;\ndate;open;high", Some(b';')),
            ("sep=;\r\ndate;open", Some(b';')),
            ("# a, b, c, d\ndate\topen", Some(b'\t')),
            ("# a, b, c, d\rdate\topen", Some(b'\t')),
        ] {
            assert_eq!(delimiter(head.as_bytes()), expected, "{head}");
        }
    }
}
