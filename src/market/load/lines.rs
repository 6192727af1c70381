//! Reads a candle file, plain or gzip-compressed, and counts its lines.

use super::delimiter::delimiter;
use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A reader that returns at most one line per call of `read`.
///
/// The CSV reader buffers ahead, and its own line count is wrong after blank lines and Windows line ends. It cannot
/// buffer beyond one line of this reader, so [`Lines::line`] is the line on which the last record ended.
pub(super) struct Lines {
    input: Box<dyn BufRead>,
    /// Bytes already read to inspect the header, of which the first `returned` were passed on.
    head: Vec<u8>,
    returned: usize,
    line: u64,
    inside_line: bool,
    packed: bool,
}

const MOST_HEAD: u64 = 1 << 16;
const MOST_HEAD_LINES: usize = 64;
const BUFFER: usize = 1 << 16;

impl Lines {
    /// Opens a file and decompresses it if its first bytes are those of gzip, whatever its name.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(Error::io(path))?);
        let packed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let mut lines = Self { input, head: Vec::new(), returned: 0, line: 0, inside_line: false, packed };
        lines.read_head().map_err(|error| lines.explain(path, error))?;
        Ok(lines)
    }

    /// Reads up to the end of the first line that shows the delimiter.
    fn read_head(&mut self) -> io::Result<()> {
        let mut input = (&mut self.input).take(MOST_HEAD);
        for _ in 0..MOST_HEAD_LINES {
            if input.read_until(b'\n', &mut self.head)? == 0 || delimiter(&self.head).is_some() {
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

    /// Maps a read error: corrupt gzip data to [`Error::Candles`], everything else to [`Error::Io`].
    pub fn explain(&self, path: &Path, error: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | InvalidData | InvalidInput if self.packed => Error::Candles {
                path: path.to_path_buf(),
                line: (self.line > 0).then_some(self.line),
                column: None,
                reason: format!(
                    "the gzip data is truncated or corrupt ({error}); download or compress the file again"
                ),
            },
            _ => Error::Io { path: path.to_path_buf(), source: error },
        }
    }
}

impl Read for Lines {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let from_head = self.returned < self.head.len();
        let ready = match self.head.get(self.returned..) {
            Some(head) if from_head => head,
            _ => self.input.fill_buf()?,
        };
        let most = ready.len().min(out.len());
        let line_end = ready.iter().take(most).position(|byte| *byte == b'\n');
        let length = line_end.map_or(most, |at| at + 1);
        if let (Some(from), Some(to)) = (ready.get(..length), out.get_mut(..length)) {
            to.copy_from_slice(from);
        }
        // The end of the input counts as one more line, as in an editor: a record that ends only there has an
        // unclosed quote, and the caller subtracts the record's newlines from this number.
        if !self.inside_line {
            self.line += 1;
        }
        self.inside_line = line_end.is_none();
        if from_head {
            self.returned += length;
        } else {
            self.input.consume(length);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Lines {
        let input = Box::new(io::Cursor::new(text.to_vec()));
        let mut lines =
            Lines { input, head: Vec::new(), returned: 0, line: 0, inside_line: false, packed: false };
        lines.read_head().expect("memory does not fail");
        lines
    }

    #[test]
    fn one_line_per_call_for_any_buffer_size() {
        for capacity in [1, 2, 3, 100] {
            let mut lines = lines(b"\xef\xbb\xbfab\r\n\n\ncdef\nlast");
            let mut buffer = vec![0; capacity];
            let mut seen = vec![String::new()];
            loop {
                let count = lines.read(&mut buffer).expect("memory does not fail");
                if count == 0 {
                    break;
                }
                let line = usize::try_from(lines.line()).expect("small");
                seen.resize(line + 1, String::new());
                seen[line] += std::str::from_utf8(&buffer[..count]).expect("ASCII");
            }
            assert_eq!(seen, ["", "ab\r\n", "\n", "\n", "cdef\n", "last"]);
        }
    }
}
