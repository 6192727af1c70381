//! Follows the metrics of a run while another process may write them. It takes no lock and changes nothing.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use same_file::Handle;

use crate::checked;
use crate::folder::{Folder, Stage};
use crate::metrics::{MOST_BYTES, Row};
use crate::run::Settings;

/// Time for which a run may be missing: its folders are renamed when it is published.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest line of the metrics in bytes.
const LONGEST_LINE: usize = 1 << 16;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// Rows after which [`Follower::news`] returns, although the file may have more.
const BATCH: usize = 1 << 14;

/// The run in a folder.
pub struct Follower {
    folder: Folder,
    file: Option<Metrics>,
    missing_since: Option<Instant>,
}

/// News of a run since the last look.
#[derive(Debug)]
pub struct News {
    pub stage: Stage,
    /// Iterations of the whole run, as soon as its settings are written.
    pub total: Option<u32>,
    /// Whether what was known before is obsolete: another run has begun, or this one goes on from a checkpoint.
    pub anew: bool,
    pub rows: Vec<Row>,
    /// Whether there is more to read at once.
    pub more: bool,
    /// Since the metrics were last written.
    pub age: Option<Duration>,
}

impl Follower {
    pub fn new(run: &Path) -> Self {
        Self { folder: Folder::new(run), file: None, missing_since: None }
    }

    /// Reads what was written since the last call; `None` if the run is missing for a moment.
    ///
    /// # Errors
    /// If there is no run, or a file of it is damaged.
    pub fn news(&mut self) -> Result<Option<News>> {
        let Some((run, stage)) = self.folder.latest() else {
            return self.missing();
        };
        let path = run.metrics();
        let opened = match checked::open(&path, MOST_BYTES) {
            Ok(file) => file,
            Err(error) if is_missing(&error) && stage != Stage::Finished => {
                let news = News {
                    stage,
                    total: total(&run)?,
                    anew: self.file.take().is_some(),
                    rows: Vec::new(),
                    more: false,
                    age: None,
                };
                return Ok(Some(news));
            }
            // Renamed in between.
            Err(error) if is_missing(&error) => return self.missing(),
            Err(error) => return Err(error),
        };
        self.missing_since = None;
        let about = opened.metadata().with_context(|| path.display().to_string())?;
        let age = about.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let handle = Handle::from_file(opened).with_context(|| path.display().to_string())?;
        let same = |file: &Metrics| file.handle == handle && about.len() >= file.read;
        let anew = self.file.as_ref().is_some_and(|file| !same(file));
        let file = match self.file.take().filter(|_| !anew) {
            Some(file) => self.file.insert(file),
            None => self.file.insert(Metrics::new(handle)),
        };
        file.path = path;
        let (mut rows, mut more) = (Vec::new(), true);
        while more && rows.len() < BATCH {
            more = file.read_on(&mut rows)?;
        }
        Ok(Some(News { stage, total: total(&run)?, anew, rows, more, age }))
    }

    fn missing(&mut self) -> Result<Option<News>> {
        let since = self.missing_since.get_or_insert_with(Instant::now);
        let here = self.folder.path().display();
        if self.file.is_some() {
            ensure!(
                since.elapsed() < PATIENCE,
                "{here} is gone: it was moved or removed while it was watched"
            );
        } else if since.elapsed() >= PATIENCE / 4 || !self.folder.path().exists() {
            bail!(
                "{here} holds no run: there is no metrics.csv; --run takes the folder of `trainer train --out`"
            );
        }
        Ok(None)
    }
}

/// Iterations of a run by its settings; `None` if they are not written yet.
fn total(run: &Folder) -> Result<Option<u32>> {
    let path = run.settings();
    match Settings::of_run(&path, &[]) {
        Ok(settings) => Ok(Some(settings.mappo.ppo.iterations)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file was not there when it was opened; a look afterwards may find it, because it has been written since.
fn is_missing(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::NotFound)
}

/// A file of metrics that may grow.
struct Metrics {
    handle: Handle,
    /// The name it has now: publishing renames it.
    path: PathBuf,
    /// Bytes read so far.
    read: u64,
    /// The start of a line whose end is not written yet.
    rest: Vec<u8>,
    lines: usize,
    header: Option<StringRecord>,
}

impl Metrics {
    fn new(handle: Handle) -> Self {
        Self { handle, path: PathBuf::new(), read: 0, rest: Vec::new(), lines: 0, header: None }
    }

    /// Reads a part of what was written since the last call; `false` if there is nothing.
    fn read_on(&mut self, rows: &mut Vec<Row>) -> Result<bool> {
        let mut chunk = vec![0; CHUNK];
        let mut read = || -> std::io::Result<usize> {
            let file: &mut File = self.handle.as_file_mut();
            file.seek(SeekFrom::Start(self.read))?;
            file.read(&mut chunk)
        };
        let bytes = read().with_context(|| self.path.display().to_string())?;
        self.read += bytes as u64;
        let mut text = std::mem::take(&mut self.rest);
        text.extend(chunk.iter().take(bytes));
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(whole);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            let row = self.line(line).with_context(|| format!("{}:{}", self.path.display(), self.lines))?;
            rows.extend(row);
        }
        ensure!(
            self.rest.len() <= LONGEST_LINE,
            "{}:{}: a line of more than {LONGEST_LINE} bytes",
            self.path.display(),
            self.lines + 1
        );
        Ok(bytes > 0)
    }

    /// A line of the file; the first one is the header.
    fn line(&mut self, line: &[u8]) -> Result<Option<Row>> {
        ensure!(line.len() <= LONGEST_LINE, "a line of more than {LONGEST_LINE} bytes");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line);
        let mut record = StringRecord::new();
        if !reader.read_record(&mut record).map_err(without_position)? {
            return Ok(None);
        }
        let Some(header) = &self.header else {
            ensure!(
                record.iter().any(|name| name == "iteration")
                    && record.iter().any(|name| name == "env_steps"),
                "this is not the header of metrics of a training: the file is damaged, or not phalanx's"
            );
            self.header = Some(record);
            return Ok(None);
        };
        ensure!(
            record.len() == header.len(),
            "{} fields, and the header has {}: the file is damaged",
            record.len(),
            header.len()
        );
        record.deserialize(Some(header)).map(Some).map_err(without_position)
    }
}

/// An error of one line without its position in that line, which the reader takes for a whole file.
fn without_position(error: csv::Error) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => anyhow::anyhow!("field {}: {}", field + 1, err.kind()),
            None => anyhow::anyhow!("{}", err.kind()),
        },
        csv::ErrorKind::Utf8 { err, .. } => anyhow::anyhow!("{err}"),
        _ => error.into(),
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
