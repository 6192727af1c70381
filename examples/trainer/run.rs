//! A run: its settings and the files in its folder.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use phalanx::env::TradingSettings;
use phalanx::files::write_atomically;
use phalanx::mappo::Config;
use phalanx::market::{Candles, GapPolicy, Splits, parse_timestamp};
use serde::{Deserialize, Serialize};

/// All settings of a run, as the configuration file has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Candles and their split.
    pub data: DataSettings,
    /// Rules of the market.
    pub market: TradingSettings,
    /// The algorithm.
    pub mappo: Config,
    /// How often the run is saved.
    pub checkpoints: CheckpointSettings,
    /// How often the policy is evaluated.
    pub evaluation: EvaluationSettings,
}

/// How often the policy is evaluated, on bars that it is not trained on. They are the last of the training bars: the
/// held-out ones decide nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Iterations between two evaluations; 0 evaluates never, and trains on all training bars.
    pub every: u32,
    /// Share of the training bars that is evaluated on.
    pub fraction: f64,
}

impl EvaluationSettings {
    /// Bars to train on, and to evaluate on if that is wanted.
    pub fn cut(&self, bars: Range<usize>) -> Result<(Range<usize>, Option<Range<usize>>)> {
        if self.every == 0 {
            return Ok((bars, None));
        }
        if !(0.01..=0.9).contains(&self.fraction) {
            anyhow::bail!(
                "setting `evaluation.fraction`: {} is out of range: from 0.01 to 0.9",
                self.fraction
            );
        }
        let count = ((bars.len() as f64 * self.fraction).round() as usize).max(2);
        let middle = bars.end.saturating_sub(count).max(bars.start);
        Ok((bars.start..middle, Some(middle..bars.end)))
    }
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { every: 0, fraction: 0.2 }
    }
}

/// How often the run is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Iterations between two checkpoints; 0 saves none.
    pub every: u32,
    /// How many of the last are kept.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every: 50, keep: 3 }
    }
}

/// Candles and their split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// What to do when instruments lack bars that others have: reject, drop or forward-fill.
    pub gaps: GapPolicy,
    /// The first share of the bars is trained on, the rest held out.
    pub train_fraction: f64,
    /// First held-out bar, in place of the fraction.
    pub test_from: Option<String>,
    /// Bars of a year, for annualised figures; inferred from the timestamps when not given.
    pub periods_per_year: Option<f64>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self { gaps: GapPolicy::default(), train_fraction: 0.75, test_from: None, periods_per_year: None }
    }
}

impl DataSettings {
    /// Reads the candles, by these settings.
    pub fn load(&self, paths: &[PathBuf]) -> Result<Candles> {
        Ok(Candles::load(paths, self.gaps)?)
    }

    /// Cuts them into training and held-out bars.
    pub fn split(&self, candles: &Candles) -> Result<Splits> {
        let splits = match &self.test_from {
            Some(date) => {
                Splits::by_date(candles, parse_timestamp(date).context("setting `data.test_from`")?)
            }
            None => Splits::by_fraction(candles.bars(), self.train_fraction),
        };
        Ok(splits?)
    }
}

/// Where the files of a run are.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn settings(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.csv")
    }

    pub fn summary(&self) -> PathBuf {
        self.0.join("training.json")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Where a run is while it is trained.
    fn staging(&self) -> Self {
        Self(self.0.join("unfinished"))
    }

    /// The run in this folder that was stopped before it was done.
    pub fn unfinished(&self) -> Result<Self> {
        self.tidy()?;
        let staging = self.staging();
        if !staging.settings().exists() {
            anyhow::bail!("{} holds no unfinished run to go on with", self.0.display());
        }
        Ok(staging)
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// Refuses a folder that holds a run, finished or not, unless `force` is given. Changes nothing that is worth keeping.
    pub fn vacant(&self, force: bool) -> Result<()> {
        let taken = [self.settings(), self.model(), self.metrics()].into_iter().find(|file| file.exists());
        if let (Some(file), false) = (taken, force) {
            anyhow::bail!(
                "{} holds a run already ({}); choose another folder with --out, or replace it with --force",
                self.0.display(),
                file.file_name().unwrap_or_default().to_string_lossy()
            );
        }
        self.tidy()?;
        if self.staging().checkpoints().exists() && !force {
            anyhow::bail!(
                "{} holds an unfinished run; go on with it with --resume, or start afresh with --force",
                self.0.display()
            );
        }
        Ok(())
    }

    /// A folder inside this one to train into, so that a run that is there already stays whole until the new one is.
    /// Without `force` a run that is there is refused.
    pub fn stage(&self, force: bool) -> Result<Self> {
        self.vacant(force)?;
        let staging = self.staging();
        if staging.checkpoints().exists() {
            std::fs::remove_dir_all(&staging.0).with_context(|| staging.0.display().to_string())?;
        }
        std::fs::create_dir_all(&staging.0).with_context(|| staging.0.display().to_string())?;
        Ok(staging)
    }

    /// Brings a finished run from its staging folder here, the model last. Results of the run before are removed, files of
    /// other names are left alone. The staging folder goes when all is here: a run that is killed meanwhile can be resumed.
    pub fn publish(&self, staging: &Self) -> Result<()> {
        let stale = ["metrics.json", "equity.csv", "trades.csv", "report.html"].map(|name| self.0.join(name));
        for file in stale.into_iter().chain([self.model()]).filter(|file| file.exists()) {
            std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
        let pairs = [
            (staging.settings(), self.settings()),
            (staging.metrics(), self.metrics()),
            (staging.summary(), self.summary()),
            (staging.model(), self.model()),
        ];
        for (from, to) in pairs {
            let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
            write_atomically(&to, &bytes)?;
        }
        // From here on there is no unfinished run any more, whatever happens.
        std::fs::rename(&staging.0, self.done()).with_context(|| staging.0.display().to_string())?;
        self.tidy()
    }

    /// What is left of a run that was published.
    fn done(&self) -> PathBuf {
        self.0.join("unfinished.done")
    }

    /// Brings the checkpoints of a published run to their place and removes what is left of it.
    fn tidy(&self) -> Result<()> {
        let done = Self(self.done());
        if !done.0.exists() {
            return Ok(());
        }
        if done.checkpoints().exists() {
            let to = self.checkpoints();
            if to.exists() {
                std::fs::remove_dir_all(&to).with_context(|| to.display().to_string())?;
            }
            std::fs::rename(done.checkpoints(), &to).with_context(|| to.display().to_string())?;
        }
        std::fs::remove_dir_all(&done.0).with_context(|| done.0.display().to_string())
    }
}

/// What is known once training has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// GPU and backend.
    pub adapter: String,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Bytes of GPU memory planned.
    pub gpu_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stays_whole_until_the_next_one_is() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let fill = |folder: &Folder, text: &str| {
            for file in [folder.settings(), folder.metrics(), folder.summary(), folder.model()] {
                std::fs::write(file, text).unwrap();
            }
        };
        let staging = folder.stage(false).unwrap();
        fill(&staging, "first");
        folder.publish(&staging).unwrap();
        std::fs::write(folder.report(), "report").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let error = folder.stage(false).unwrap_err().to_string();
        assert!(error.contains("config.toml") && error.contains("--force"), "{error}");
        let staging = folder.stage(true).unwrap();
        fill(&staging, "second");
        assert_eq!(std::fs::read_to_string(folder.model()).unwrap(), "first");
        assert!(folder.report().exists());
        folder.publish(&staging).unwrap();
        assert_eq!(std::fs::read_to_string(folder.model()).unwrap(), "second");
        assert!(!folder.report().exists() && !staging.path().exists());
        assert!(folder.path().join("notes.txt").exists());
    }

    #[test]
    fn an_unfinished_run_is_not_lost_by_accident() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let error = folder.unfinished().unwrap_err().to_string();
        assert!(error.contains("no unfinished run"), "{error}");
        let staging = folder.stage(false).unwrap();
        std::fs::write(staging.settings(), "settings").unwrap();
        std::fs::create_dir(staging.checkpoints()).unwrap();
        let error = folder.stage(false).unwrap_err().to_string();
        assert!(error.contains("--resume") && error.contains("--force"), "{error}");
        assert_eq!(folder.unfinished().unwrap().settings(), staging.settings());
        assert!(!folder.stage(true).unwrap().checkpoints().exists());
    }

    #[test]
    fn a_run_that_is_killed_while_it_is_published_is_there_or_can_be_resumed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let staging = folder.stage(false).unwrap();
        for file in [staging.settings(), staging.metrics(), staging.summary(), staging.model()] {
            std::fs::write(file, "finished").unwrap();
        }
        std::fs::create_dir(staging.checkpoints()).unwrap();
        std::fs::write(staging.checkpoints().join("last"), "state").unwrap();
        // Copies come first: until all are there the unfinished run is whole.
        std::fs::copy(staging.settings(), folder.settings()).unwrap();
        assert!(folder.unfinished().unwrap().checkpoints().join("last").exists());
        // Then it is done at one stroke, and whoever comes next tidies up.
        std::fs::rename(&staging.0, folder.done()).unwrap();
        assert!(folder.unfinished().unwrap_err().to_string().contains("no unfinished run"));
        assert_eq!(std::fs::read_to_string(folder.checkpoints().join("last")).unwrap(), "state");
        assert!(!folder.done().exists());
    }

    #[test]
    fn settings_survive_the_file_and_unknown_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let settings: Settings = crate::settings::resolve(
            None,
            &[
                "mappo.gamma=0.9".into(),
                "data.test_from=\"2011-01-03\"".into(),
                "market.shorting=false".into(),
            ],
        )
        .unwrap();
        assert_eq!((settings.mappo.gamma, settings.market.shorting), (0.9, false));
        crate::settings::write_resolved(&path, &settings).unwrap();
        assert_eq!(crate::settings::resolve::<Settings>(Some(&path), &[]).unwrap(), settings);
        let error = crate::settings::resolve::<Settings>(None, &["mappo.gama=0.9".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("did you mean `mappo.gamma`"), "{error:#}");
    }
}
