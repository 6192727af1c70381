//! The journal of a live program: every bar with its decision, so that another process can go on where this one was killed, and the
//! account can be compared with others.
//!
//! A line has a checksum and a JSON text. The first one says which model and which history the bars belong to. Replaying the bars gives
//! the same features, account and memory, to the last bit; a state of its own could not be checked against anything.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use phalanx::files::{AppendFile, write_atomically};
use phalanx::jiff::civil::DateTime;
use phalanx::market::LiveBar;
use phalanx::policy::Decision;
use serde::{Deserialize, Serialize};
use std::io::Write as _;

use super::bars::ClosedBar;
use crate::checked;
use crate::console::note;

/// Largest journal that is read, in bytes.
const MOST_BYTES: u64 = 4 << 30;

const FORMAT: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    format: u32,
    symbols: Vec<String>,
    /// CRC-32 of the model file.
    model: u32,
    /// CRC-32 of the candles before the first live bar.
    history: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    time: DateTime,
    /// Open, high, low, close, volume, funding.
    bars: Vec<Option<[f64; 6]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holdings: Option<(f64, Vec<f64>)>,
    /// Missing while the features lack history, and in journals of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided: Option<Decided>,
}

/// A decision and the account at its close, in the order of the instruments.
#[derive(Serialize, Deserialize)]
struct Decided {
    targets: Vec<f64>,
    equity: f64,
    units: Vec<f64>,
}

pub struct Journal {
    file: AppendFile,
    /// Keeps other processes out.
    _lock: File,
    every: u64,
    unsynced: u64,
}

impl Entry {
    fn bar(self) -> ClosedBar {
        let bar = |values: Option<[f64; 6]>| {
            values.map(|[open, high, low, close, volume, funding]| LiveBar {
                open,
                high,
                low,
                close,
                volume,
                funding,
            })
        };
        ClosedBar { time: self.time, bars: self.bars.into_iter().map(bar).collect(), holdings: self.holdings }
    }
}

impl Header {
    pub fn new(symbols: &[String], model: u32, history: u32) -> Self {
        Self { format: FORMAT, symbols: symbols.to_vec(), model, history }
    }
}

fn line(text: &str) -> String {
    format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
}

/// The file, locked for this process.
fn locked(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{}: another process decides with this journal", path.display())
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The text of a line whose checksum is right.
fn checked_text(line: &str) -> Option<&str> {
    let (crc, text) = line.split_once(' ')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(text.as_bytes())).then_some(text)
}

/// The first line and the others, without an incomplete last one.
fn parse(path: &Path, text: &str) -> Result<(Header, Vec<Entry>)> {
    let place = path.display();
    let mut lines = text.lines().enumerate();
    let first = lines.next().and_then(|(_, line)| checked_text(line));
    let first = first.with_context(|| {
        format!("{place} is not a journal of `trainer live`, or its first line is damaged")
    })?;
    let header: Header = checked::from_json(first).with_context(|| format!("{place}:1"))?;
    ensure!(
        header.format == FORMAT,
        "{place}: format {}, expected {FORMAT}: use the version that wrote it",
        header.format
    );
    let entries = lines.map(|(index, line)| {
        let number = index + 1;
        let text = checked_text(line).with_context(|| {
            format!("{place}:{number}: checksum mismatch: the line is damaged; cut the file before it to lose the bars from there on")
        })?;
        let entry: Entry = checked::from_json(text).with_context(|| format!("{place}:{number}"))?;
        ensure!(entry.bars.len() == header.symbols.len(), "{place}:{number}: {} bars", entry.bars.len());
        Ok(entry)
    });
    let entries = entries.collect::<Result<_>>()?;
    Ok((header, entries))
}

/// The whole lines of a text.
fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

/// The account of a journal, which another process may be writing: the times of its decisions, and the equity at their closes.
pub fn account(path: &Path) -> Result<Vec<(DateTime, f64)>> {
    let text = checked::read_text(path, MOST_BYTES)?;
    let (_, entries) = parse(path, whole_lines(&text))?;
    Ok(entries.into_iter().filter_map(|entry| Some((entry.time, entry.decided?.equity))).collect())
}

/// Checks that a journal has the bars of a session, as far as both go, and removes those after the session's last.
pub fn cut(path: &Path, session: &[ClosedBar]) -> Result<()> {
    drop(locked(path)?);
    let text = checked::read_text(path, MOST_BYTES)?;
    let whole = whole_lines(&text);
    let (_, entries) = parse(path, whole)?;
    for (own, other) in entries.into_iter().map(Entry::bar).zip(session) {
        ensure!(
            (own.time, &own.bars) == (other.time, &other.bars),
            "{}: the bar of {} is that of another session: move the file elsewhere",
            path.display(),
            own.time
        );
    }
    let end = whole.match_indices('\n').nth(session.len()).map(|(end, _)| end);
    if let Some(end) = end.filter(|end| end + 1 < text.len()) {
        write_atomically(path, &text.as_bytes()[..=end])?;
    }
    Ok(())
}

impl Journal {
    /// Starts a journal.
    pub fn create(path: &Path, header: &Header, every: u64) -> Result<Self> {
        ensure!(
            !path.exists(),
            "{} exists: go on with it with --resume, or give another name",
            path.display()
        );
        write_atomically(path, line(&serde_json::to_string(header)?).as_bytes())?;
        Self::open(path, every)
    }

    /// Opens a journal of the same model and history, and returns its bars. A torn last line is removed: its decision was never
    /// answered.
    pub fn resume(path: &Path, header: &Header, every: u64) -> Result<(Self, Vec<ClosedBar>)> {
        let place = path.display();
        drop(locked(path)?);
        let text = checked::read_text(path, MOST_BYTES)?;
        let whole = whole_lines(&text);
        let (found, entries) = parse(path, whole)?;
        ensure!(found.symbols == header.symbols, "{place}: it is a journal of {}", found.symbols.join(", "));
        ensure!(
            found.model == header.model,
            "{place}: it belongs to another model; move it elsewhere, or choose another journal with --state"
        );
        ensure!(
            found.history == header.history,
            "{place}: it began after other candles; give the same files with --data, or start a new journal"
        );
        let bars = entries.into_iter().map(Entry::bar).collect();
        if whole.len() < text.len() {
            note!("Journal   {place}: the last line was incomplete and is removed; send its bar again");
            write_atomically(path, whole.as_bytes())?;
        }
        Ok((Self::open(path, every)?, bars))
    }

    fn open(path: &Path, every: u64) -> Result<Self> {
        let lock = locked(path)?;
        Ok(Self { file: AppendFile::open(path)?, _lock: lock, every, unsynced: 0 })
    }

    /// Appends a bar and its decision. It is in the file, though perhaps not on the disk, before this returns.
    pub fn append(&mut self, bar: &ClosedBar, decision: Option<&Decision>) -> Result<()> {
        let values = |bar: &LiveBar| [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.funding];
        let entry = Entry {
            time: bar.time,
            bars: bar.bars.iter().map(|bar| bar.as_ref().map(values)).collect(),
            holdings: bar.holdings.clone(),
            decided: decision.map(|Decision { targets, equity, units, .. }| Decided {
                targets: targets.clone(),
                equity: *equity,
                units: units.clone(),
            }),
        };
        self.file
            .write_all(line(&serde_json::to_string(&entry)?).as_bytes())
            .context("writing the journal")?;
        self.unsynced += 1;
        if self.unsynced >= self.every {
            self.sync()?;
        }
        Ok(())
    }

    /// Forces everything to disk.
    pub fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file.sync().context("writing the journal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(day: i8) -> ClosedBar {
        let bar = LiveBar { open: 0.1, high: 0.3, low: 0.1, close: 0.2 + 1e-17, volume: 7.0, funding: -0.01 };
        let time = phalanx::jiff::civil::date(2024, 1, day).at(0, 0, 0, 0);
        ClosedBar { time, bars: vec![Some(bar), None], holdings: (day == 2).then(|| (1.5, vec![0.0, -2.0])) }
    }

    #[test]
    fn a_journal_returns_its_bars_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let header = Header::new(&["A".into(), "B".into()], 1, 2);
        let mut journal = Journal::create(&path, &header, 10).unwrap();
        let decision = |day: i8| Decision {
            targets: vec![1.0, 0.0],
            probabilities: vec![],
            values: vec![],
            equity: 1000.1 * f64::from(day),
            units: vec![0.5, 0.0],
            bankrupt: false,
        };
        // At the first bar the features lack history.
        let decided = |day| (day > 1).then(|| decision(day));
        (1..4).for_each(|day| journal.append(&bar(day), decided(day).as_ref()).unwrap());
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 7]).unwrap();
        let (mut journal, bars) = Journal::resume(&path, &header, 1).unwrap();
        assert_eq!(bars, [bar(1), bar(2)]);
        journal.append(&bar(3), decided(3).as_ref()).unwrap();
        drop(journal);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let account = account(&path).unwrap();
        assert_eq!(account, [(bar(2).time, 2000.2), (bar(3).time, decision(3).equity)]);
        let error = |header: &Header| format!("{:#}", Journal::resume(&path, header, 1).err().unwrap());
        assert!(error(&Header { model: 5, ..header.clone() }).contains("another model"));
        assert!(error(&Header { history: 5, ..header.clone() }).contains("other candles"));
        assert!(error(&Header { symbols: vec!["A".into()], ..header.clone() }).contains("a journal of A, B"));
        assert!(format!("{:#}", Journal::create(&path, &header, 1).err().unwrap()).contains("--resume"));
        cut(&path, &[bar(1), bar(2), bar(3), bar(4)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let other = cut(&path, &[bar(1), bar(4)]).unwrap_err().to_string();
        assert!(other.contains("the bar of 2024-01-02T00:00:00 is that of another session"), "{other}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is removed");
        cut(&path, &[bar(1), bar(2)]).unwrap();
        assert_eq!(Journal::resume(&path, &header, 1).unwrap().1, [bar(1), bar(2)]);
        // A flipped digit in the middle.
        let place = text.find("0.3").unwrap();
        std::fs::write(&path, text[..place].to_string() + "0.4" + &text[place + 3..]).unwrap();
        assert!(error(&header).contains("journal:2: checksum mismatch"), "{}", error(&header));
        std::fs::write(&path, "time,open\n").unwrap();
        assert!(error(&header).contains("not a journal"));
    }
}
