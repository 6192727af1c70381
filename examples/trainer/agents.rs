//! The trained runs whose agents trade: one, or several that decide together.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::DateTime;
use phalanx::market::Candles;
use phalanx::policy::{Ensemble, MarketMetadata, Policy};

use crate::folder::Folder;
use crate::known::Known;
use crate::run::{DataSettings, Settings};

/// A trained run.
pub struct TrainedRun {
    pub folder: Folder,
    /// Its number when it was read.
    pub number: Option<u64>,
    pub settings: Settings,
    pub policy: Policy,
}

impl TrainedRun {
    fn open(path: &Path, sets: &[String]) -> Result<Self> {
        let folder = Folder::trained(path)?;
        let number = folder.run_number();
        let settings = Settings::of_run(&folder.settings(), sets)?;
        let policy = Policy::load(&folder.model())?;
        policy.market()?;
        Ok(Self { folder, number, settings, policy })
    }

    pub fn market(&self) -> Result<&MarketMetadata> {
        Ok(self.policy.market()?)
    }

    /// The bars that it knows.
    pub fn known(&self) -> Result<Known<'_>> {
        Ok(Known::new(&self.settings, self.market()?))
    }
}

/// One run, or several whose mean logits decide.
pub struct Agents {
    /// At least one.
    runs: Vec<TrainedRun>,
    pub ensemble: Ensemble,
}

impl Agents {
    /// Loads runs and checks that they can decide together.
    pub fn open(paths: &[PathBuf], sets: &[String]) -> Result<Self> {
        let runs = paths.iter().map(|path| TrainedRun::open(path, sets)).collect::<Result<Vec<_>>>()?;
        let (first, others) = runs.split_first().context("there are no runs")?;
        for (index, other) in others.iter().enumerate() {
            let [own, found] = [first, other].map(|run| run.folder.path().display());
            let before = &runs[..=index];
            if before
                .iter()
                .any(|run| same_file::is_same_file(run.folder.path(), other.folder.path()).unwrap_or(false))
            {
                bail!("--run {found}: the run is named twice");
            }
            let difference = Ensemble::difference(&first.policy, &other.policy)
                .or_else(|| difference(&first.settings.data, &other.settings.data));
            if let Some(difference) = difference {
                bail!("--run {found} cannot decide together with {own}: {difference}");
            }
        }
        let ensemble = Ensemble::new(runs.iter().map(|run| run.policy.clone()).collect())?;
        Ok(Self { runs, ensemble })
    }

    pub fn runs(&self) -> &[TrainedRun] {
        &self.runs
    }

    /// The first run, whose settings and market are those of all, but for the training.
    pub fn first(&self) -> &TrainedRun {
        &self.runs[0]
    }

    pub fn several(&self) -> bool {
        self.runs.len() > 1
    }

    /// The name of the run, or those of all.
    pub fn names(&self, separator: &str) -> String {
        let names: Vec<_> = self.runs.iter().map(|run| run.folder.name()).collect();
        names.join(separator)
    }

    pub fn market(&self) -> Result<&MarketMetadata> {
        Ok(self.ensemble.market()?)
    }

    /// The first bar that neither trained nor chose any of the models.
    pub fn test_from(&self) -> Result<DateTime> {
        let all = self.runs.iter().map(|run| Ok(run.market()?.test_from)).collect::<Result<Vec<_>>>()?;
        all.into_iter().max().context("there are no runs")
    }

    /// The bars that all models were trained on, if the candles have them and all of them come before the bar `before`.
    pub fn trained_before(&self, before: usize, candles: &Candles) -> Result<Option<Range<usize>>> {
        let mut common = 0..before;
        for run in &self.runs {
            // The candles may lack them, or training went on after the held-out bars.
            let Ok(trained) = run.known()?.trained(candles) else { return Ok(None) };
            if trained.end > before || !run.known()?.between().is_empty() {
                return Ok(None);
            }
            common = common.start.max(trained.start)..common.end.min(trained.end);
        }
        Ok(Some(common).filter(|bars| bars.len() > 1))
    }

    /// Checks that no run was replaced since it was read.
    pub fn unchanged(&self) -> Result<()> {
        for TrainedRun { folder, number, .. } in &self.runs {
            ensure!(
                folder.run_number() == *number,
                "{} was replaced by another run meanwhile: run the backtest again",
                folder.path().display()
            );
        }
        Ok(())
    }
}

/// The difference of how two runs read candles.
fn difference(first: &DataSettings, other: &DataSettings) -> Option<String> {
    let texts = |data: &DataSettings| {
        [("data.gaps", serde_json::json!(data.gaps)), ("data.adjust", serde_json::json!(data.adjust))]
    };
    let (own, found) = (texts(first), texts(other));
    let ((key, own), (_, found)) = own.into_iter().zip(found).find(|(own, found)| own != found)?;
    Some(format!("its `{key}` is {found} instead of {own}"))
}
