//! Reads a candle file, plain or gzip-compressed, counts its lines, and bounds what it can claim.

use super::delimiter::delimiter;
use super::{LoadLimits, fault};
use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A reader that returns at most one line per call of `read`.
///
/// The CSV reader buffers ahead, and its own line count is wrong after blank lines and Windows line ends. It cannot
/// buffer beyond one line of this reader, so [`Lines::line`] is the line on which the last record ended, and what was read since the
/// record began bounds what the CSV reader holds of it.
pub(super) struct Lines<'a> {
    input: Box<dyn BufRead + 'a>,
    /// Bytes already read to inspect the header, of which the first `returned` were passed on.
    head: Vec<u8>,
    returned: usize,
    line: u64,
    inside_line: bool,
    /// The last byte was a carriage return: a newline after it belongs to the same line.
    after_return: bool,
    /// Bytes of the present record.
    record: usize,
    most_record: usize,
    packed: bool,
}

const MOST_HEAD: usize = 1 << 16;
const MOST_HEAD_LINES: usize = 128;
const BUFFER: usize = 1 << 16;

impl<'a> Lines<'a> {
    /// Reads `input`, decompressed if its first bytes are those of gzip.
    pub fn new(path: &Path, input: Box<dyn Read + 'a>, limits: &LoadLimits) -> Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER, Counted { input, bytes: 0 });
        let packed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn BufRead + 'a> = if packed {
            let unpacked = Unpacked { input: MultiGzDecoder::new(file), bytes: 0, limits: limits.clone() };
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        } else {
            Box::new(file)
        };
        let mut lines = Self::of(input, packed, limits.line_bytes);
        lines.read_head().map_err(|error| lines.explain(path, error))?;
        Ok(lines)
    }

    fn of(input: Box<dyn BufRead + 'a>, packed: bool, most_record: usize) -> Self {
        Self {
            input,
            head: Vec::new(),
            returned: 0,
            line: 0,
            inside_line: false,
            after_return: false,
            record: 0,
            most_record,
            packed,
        }
    }

    /// Reads up to the end of the first line that shows the delimiter.
    fn read_head(&mut self) -> io::Result<()> {
        for _ in 0..MOST_HEAD_LINES {
            if !take_line(&mut self.input, MOST_HEAD, &mut self.head)? || delimiter(&self.head).is_some() {
                break;
            }
        }
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        if self.head.starts_with(BYTE_ORDER_MARK) {
            self.returned = BYTE_ORDER_MARK.len();
        }
        Ok(())
    }

    /// The delimiter of the header line; a comma if it has none.
    pub fn delimiter(&self) -> u8 {
        delimiter(&self.head).unwrap_or(b',')
    }

    /// 1-based number of the line returned last; 0 before the first. At the end of an input whose last line is
    /// terminated, one more than the number of lines.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Begins a record.
    pub fn begin_record(&mut self) {
        self.record = 0;
    }

    /// Maps a read error: exceeded limits and corrupt gzip data to [`Error::Candles`], everything else to [`Error::Io`].
    pub fn explain(&self, path: &Path, error: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        let line = (self.line > 0).then_some(self.line);
        if let Some(Exceeded(reason)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return fault(path, line, None, reason);
        }
        match error.kind() {
            UnexpectedEof | InvalidData | InvalidInput if self.packed => {
                let reason = format!(
                    "the gzip data is truncated or corrupt ({error}); download or compress the file again"
                );
                fault(path, line, None, reason)
            }
            _ => Error::Io { path: path.to_path_buf(), source: error },
        }
    }

    /// Counts the next bytes of a record.
    fn count(&mut self, part: usize) -> io::Result<()> {
        self.record += part;
        if self.record <= self.most_record {
            return Ok(());
        }
        Err(io::Error::other(Exceeded(format!(
            "a line, or a row over several lines, has more than {} bytes: check that this is a table and that every quote is closed, or \
             raise data.limits.line_bytes",
            self.most_record
        ))))
    }

    /// Skips blank lines before a record, of which the CSV reader would take one at a time.
    fn skip_blank_lines(&mut self) -> io::Result<()> {
        loop {
            let from_head = self.returned < self.head.len();
            let ready = match self.head.get(self.returned..) {
                Some(head) if from_head => head,
                _ => self.input.fill_buf()?,
            };
            let length = ready.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
            let Some(blank) = ready.get(..length).filter(|blank| !blank.is_empty()) else { return Ok(()) };
            let late = self.after_return && blank.starts_with(b"\n");
            self.line += line_ends(blank) - u64::from(late);
            self.after_return = blank.ends_with(b"\r");
            if from_head {
                self.returned += length;
            } else {
                self.input.consume(length);
            }
        }
    }
}

/// Appends what is left of a line to `out`, up to `most` bytes in all; false if there is nothing.
fn take_line(input: &mut impl BufRead, most: usize, out: &mut Vec<u8>) -> io::Result<bool> {
    let before = out.len();
    loop {
        let ready = input.fill_buf()?;
        let ready = ready.get(..ready.len().min(most.saturating_sub(out.len()))).unwrap_or_default();
        let end = ready.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let length = end.map_or(ready.len(), |at| at + 1);
        out.extend(ready.iter().take(length));
        input.consume(length);
        if end.is_some() || length == 0 {
            return Ok(out.len() > before);
        }
    }
}

impl Read for Lines<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.record == 0 {
            self.skip_blank_lines()?;
        }
        let from_head = self.returned < self.head.len();
        let ready = match self.head.get(self.returned..) {
            Some(head) if from_head => head,
            _ => self.input.fill_buf()?,
        };
        let ready = ready.get(..ready.len().min(out.len())).unwrap_or_default();
        let late = std::mem::take(&mut self.after_return) && ready.first() == Some(&b'\n');
        let (length, ended) = if late { (1, true) } else { first_line(ready) };
        if let (Some(from), Some(to)) = (ready.get(..length), out.get_mut(..length)) {
            to.copy_from_slice(from);
        }
        self.after_return = ended && ready.get(length.saturating_sub(1)) == Some(&b'\r');
        // The end of the input counts as one more line, as in an editor: a record that ends only there has an
        // unclosed quote, and the caller subtracts the record's line ends from this number.
        if !self.inside_line && !late {
            self.line += 1;
        }
        self.inside_line = !ended;
        if from_head {
            self.returned += length;
        } else {
            self.input.consume(length);
        }
        self.count(length)?;
        Ok(length)
    }
}

/// Length of the first line with its end, and whether it has one: a newline, a carriage return, or both.
fn first_line(text: &[u8]) -> (usize, bool) {
    match text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        None => (text.len(), false),
        Some(at) if text.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n")) => (at + 2, true),
        Some(at) => (at + 1, true),
    }
}

/// Number of line ends, of which a carriage return with a newline is one.
pub(super) fn line_ends(text: &[u8]) -> u64 {
    let newlines = text.iter().filter(|byte| **byte == b'\n').count();
    let returns = match text.contains(&b'\r') {
        false => 0,
        true => {
            let next = text.iter().skip(1).map(Some).chain([None]);
            text.iter().zip(next).filter(|(byte, next)| **byte == b'\r' && *next != Some(&b'\n')).count()
        }
    };
    (newlines + returns) as u64
}

/// A limit that the input exceeds, and what to do.
#[derive(Debug)]
struct Exceeded(String);

impl fmt::Display for Exceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Exceeded {}

/// Counts the bytes that are read.
struct Counted<R> {
    input: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(out)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Decompresses, and compares the size with that of the compressed bytes read so far.
struct Unpacked<R> {
    input: MultiGzDecoder<BufReader<Counted<R>>>,
    bytes: u64,
    limits: LoadLimits,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(out)?;
        self.bytes += count as u64;
        let packed = self.input.get_ref().get_ref().bytes;
        if self.bytes > self.limits.unpacked(packed) {
            return Err(io::Error::other(Exceeded(self.limits.unpacked_refusal(packed))));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn lines(text: &[u8]) -> Lines<'_> {
        let mut lines = Lines::of(Box::new(text), false, 1 << 20);
        lines.read_head().expect("memory does not fail");
        lines
    }

    /// The lines, by their numbers.
    fn numbered(mut lines: Lines, capacity: usize) -> Vec<String> {
        let mut buffer = vec![0; capacity];
        let mut seen = vec![String::new()];
        loop {
            let count = lines.read(&mut buffer).expect("memory does not fail");
            if count == 0 {
                return seen;
            }
            let line = usize::try_from(lines.line()).expect("small");
            seen.resize(line + 1, String::new());
            seen[line] += std::str::from_utf8(&buffer[..count]).expect("ASCII");
        }
    }

    #[test]
    fn one_line_per_call_for_any_buffer_size() {
        for capacity in [1, 2, 3, 100] {
            let seen = numbered(lines(b"\xef\xbb\xbfab\r\n\n\ncdef\nlast"), capacity);
            assert_eq!(seen, ["", "ab\r\n", "\n", "\n", "cdef\n", "last"]);
            let seen = numbered(lines(b"a,b\rc\r\rd\r\n\r\ne\n\rf"), capacity);
            assert_eq!(seen, ["", "a,b\r", "c\r", "\r", "d\r\n", "\r\n", "e\n", "\r", "f"]);
        }
        assert_eq!([line_ends(b"a\nb\r\nc\rd\r"), line_ends(b""), line_ends(b"\r\n")], [4, 0, 1]);
    }

    #[test]
    fn lines_and_records_are_bounded_but_blank_lines_are_not() {
        let refused = |text: &[u8], begin: bool| {
            let mut lines = Lines::of(Box::new(text), false, 10);
            let mut buffer = [0; 4];
            loop {
                match lines.read(&mut buffer) {
                    Ok(0) => return None,
                    Ok(_) if begin => lines.begin_record(),
                    Ok(_) => {}
                    Err(error) => return Some(lines.explain(Path::new("a.csv"), error).to_string()),
                }
            }
        };
        let error = refused(b"a\n0123456789\n", false).expect("11 bytes and more");
        assert!(
            error.starts_with("a.csv:2: a line, or a row over several lines, has more than 10 bytes: "),
            "{error}"
        );
        assert!(error.ends_with("or raise data.limits.line_bytes"), "{error}");
        assert_eq!(refused(b"a\n0123456789\n", true), None);
        // A quote that is never closed holds blank lines too.
        assert!(refused(b"\"\n\n\n\n\n\n\n\n\n\n\n", false).is_some());
        assert_eq!(refused(&b"\r\n".repeat(1000), false), None);
    }

    /// Counts the bytes that are taken from an endless or compressed input.
    struct Taken<R>(R, Rc<Cell<u64>>);

    impl<R: Read> Read for Taken<R> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(out)?;
            self.1.set(self.1.get() + count as u64);
            Ok(count)
        }
    }

    fn gzip(input: impl Read, bytes: u64) -> Vec<u8> {
        let mut packer = flate2::read::GzEncoder::new(input.take(bytes), flate2::Compression::best());
        let mut packed = Vec::new();
        packer.read_to_end(&mut packed).expect("memory does not fail");
        packed
    }

    /// Reads until the end or an error, and says how many lines came.
    fn drained(input: impl Read, limits: &LoadLimits) -> (u64, Result<()>) {
        let path = Path::new("a.csv.gz");
        let mut lines = match Lines::new(path, Box::new(input), limits) {
            Ok(lines) => lines,
            Err(error) => return (0, Err(error)),
        };
        let mut buffer = vec![0; 1 << 14];
        loop {
            lines.begin_record();
            match lines.read(&mut buffer) {
                Ok(0) => return (lines.line(), Ok(())),
                Ok(_) => {}
                Err(error) => return (lines.line(), Err(lines.explain(path, error))),
            }
        }
    }

    /// However many there are, they take one call for each time that the input is filled.
    #[test]
    fn blank_lines_are_skipped_before_a_record_and_counted() {
        let mut lines = lines(b"a,b\n");
        lines.head.extend(b"\r\n\n\r".repeat(1000));
        lines.input = Box::new(&b"\n\r\nlast\n\n"[..]);
        let mut buffer = [0; 100];
        assert_eq!((lines.read(&mut buffer).ok(), lines.line()), (Some(4), 1));
        lines.begin_record();
        assert_eq!((lines.read(&mut buffer).ok(), lines.line()), (Some(5), 3003));
        assert_eq!(buffer[..5], *b"last\n");
        // Within a record they are text.
        assert_eq!((lines.read(&mut buffer).ok(), lines.line()), (Some(1), 3004));
    }

    #[test]
    fn archives_that_grow_a_thousandfold_are_stopped_early() {
        let mut limits = LoadLimits { unpacked_bytes: 1 << 16, ..LoadLimits::default() };
        let packed = gzip(io::repeat(b'\n'), 64 << 20);
        assert!(packed.len() < 70_000, "{}", packed.len());
        let (line, end) = drained(&packed[..], &limits);
        let error = end.expect_err("a ratio of a thousand").to_string();
        assert!(line <= limits.unpacked(packed.len() as u64), "{line}");
        assert!(error.contains("or raise data.limits.unpacked_ratio"), "{error}");
        // As much as the archive holds.
        limits.unpacked_bytes = 64 << 20;
        assert!(drained(&packed[..], &limits).1.is_ok());
        limits.unpacked_bytes = 0;
        limits.unpacked_ratio = 2000;
        assert!(drained(&packed[..], &limits).1.is_ok());
    }

    #[test]
    fn an_endless_line_is_stopped_at_the_limit() {
        let taken = Rc::new(Cell::new(0));
        for byte in [0, b',', b'"'] {
            taken.set(0);
            let limits = LoadLimits::default();
            let input = Box::new(Taken(io::repeat(byte), taken.clone()));
            let mut lines = Lines::new(Path::new("zero"), input, &limits).expect("the head is short");
            let mut buffer = [0; 1 << 14];
            let error = loop {
                match lines.read(&mut buffer) {
                    Ok(count) => assert!(count > 0),
                    Err(error) => break lines.explain(Path::new("zero"), error).to_string(),
                }
            };
            assert!(error.starts_with("zero:1: a line, or "), "{error}");
            assert!(taken.get() < 2 * limits.line_bytes as u64, "{} bytes were read", taken.get());
        }
    }
}
