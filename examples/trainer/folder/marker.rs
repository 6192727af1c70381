//! The file by which a folder is known as ours, and its list of what phalanx wrote there.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use anyhow::{Context, Result, bail};
use phalanx::files::write_atomically;
use phalanx::policy::Policy;
use serde::{Deserialize, Serialize};

use super::{AUDIT, CHECKPOINTS, EVENTS, Folder, INITIAL, RUN, WALK, publish};
use crate::checked::{from_json, read_text};
use crate::run::Settings;

pub const MARKER: &str = "phalanx-run.json";

/// Version of the format, raised when older programs could not respect newer folders.
const FORMAT: u32 = 1;

/// Largest marker that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    format: u32,
    version: String,
    /// A random number of the finished run in the folder, if there is one.
    #[serde(default)]
    pub run: Option<u64>,
    /// Files of ours, relative to the folder, with `/`.
    pub files: BTreeSet<String>,
}

impl Default for Marker {
    fn default() -> Self {
        Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").into(), run: None, files: BTreeSet::new() }
    }
}

impl Marker {
    pub fn of(files: impl IntoIterator<Item = String>) -> Self {
        Self { files: files.into_iter().collect(), ..Self::default() }
    }

    pub fn of_a_new_run(self) -> Self {
        // Seeded by the system, anew for every state.
        let number = RandomState::new().build_hasher().finish();
        Self { run: Some(number), ..self }
    }

    pub fn holds(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// The marker of a folder, if it has one.
    ///
    /// # Errors
    /// If it cannot be read, has another format, or lists files that no run has.
    pub fn read(folder: &Folder) -> Result<Option<Self>> {
        let path = folder.path().join(MARKER);
        let named = || path.display().to_string();
        if !path.try_exists().with_context(named)? {
            return Ok(None);
        }
        let marker: Self = from_json(&read_text(&path, MOST_BYTES)?).with_context(named)?;
        if marker.format != FORMAT {
            bail!(
                "{}: format {}, and this version reads format {FORMAT}: use the version that wrote it ({})",
                path.display(),
                marker.format,
                marker.version
            );
        }
        if let Some(other) = marker.files.iter().find(|name| !is_ours(name)) {
            bail!("{}: `files` lists `{other}`, which no run has", path.display());
        }
        Ok(Some(marker))
    }

    pub fn write(&self, folder: &Folder) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context(MARKER)?;
        Ok(write_atomically(&folder.path().join(MARKER), &text)?)
    }

    /// Marks the folder of a run from before markers, and its unfinished run.
    pub fn adopt(folder: &Folder) -> Result<Self> {
        let unfinished = Folder(folder.path().join(publish::FINISHED_RUN.unfinished));
        let done = Folder(folder.path().join(publish::FINISHED_RUN.done));
        for inner in [&unfinished, &done] {
            if inner.settings().exists() && Self::read(inner)?.is_none() {
                Self::of(written(inner)?).write(inner)?;
            }
        }
        let marker = Self::of(written(folder)?);
        marker.write(folder)?;
        Ok(marker)
    }
}

/// Whether a run has a file of this name.
pub fn is_ours(name: &str) -> bool {
    let checkpoint = name.strip_prefix(CHECKPOINTS).and_then(|rest| rest.strip_prefix('/'));
    match checkpoint {
        Some("best.safetensors") => true,
        Some(file) => file
            .strip_prefix("iteration-")
            .and_then(|rest| rest.strip_suffix(".safetensors"))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())),
        None => [&RUN[..], &WALK, &AUDIT, &[INITIAL, EVENTS]].iter().any(|all| all.contains(&name)),
    }
}

/// The files in a folder of ours that have names of ours.
fn written(folder: &Folder) -> Result<Vec<String>> {
    let names = RUN
        .iter()
        .chain(&WALK)
        .chain(&AUDIT)
        .chain([&EVENTS])
        .filter(|name| folder.path().join(name).exists());
    let names = names.map(ToString::to_string);
    Ok(names.chain(folder.checkpoint_names()?).collect())
}

/// Whether a folder without a marker holds a run of an earlier version: settings of ours beside a model of ours, or an unfinished
/// run with settings of ours. Runs write down all their settings, so that a file with a few of them is not taken for one.
pub fn is_older_run(folder: &Folder) -> bool {
    let settings = |folder: &Folder| {
        let path = folder.settings();
        let ours = path.is_file() && Settings::of_run(&path, &[]).is_ok();
        let text = if ours { std::fs::read_to_string(&path).ok() } else { None };
        let table = text.and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
        [("data", "gaps"), ("market", "positions"), ("mappo", "seed")]
            .iter()
            .all(|(section, key)| table.get(*section).is_some_and(|section| section.get(key).is_some()))
    };
    let inner = |name: &str| settings(&Folder(folder.path().join(name)));
    let finished = settings(folder) && Policy::load(&folder.model()).is_ok();
    finished || inner(publish::FINISHED_RUN.unfinished) || inner(publish::FINISHED_RUN.done)
}
