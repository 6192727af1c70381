//! A trained run and its history, before the device is opened.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use phalanx::market::Candles;
use phalanx::policy::{MarketMetadata, Policy, TrainingBars};

use super::DeskArgs;
use super::journal::Header;
use crate::folder::Folder;
use crate::run::{DataSettings, Settings};

/// A policy with what it needs to decide on live bars.
pub struct Model {
    /// Folder of its run.
    pub path: PathBuf,
    pub policy: Policy,
    pub settings: Settings,
    /// The bars before the first live one.
    pub history: Option<Candles>,
    /// CRC-32 of the model file.
    checksum: u32,
}

impl Model {
    /// Loads a run, without a history.
    pub fn load(path: &Path, args: &DeskArgs) -> Result<Self> {
        let run = Folder::trained(path)?;
        let settings = Settings::of_live(&run.settings(), &args.sets)?;
        let policy = Policy::load(&run.model())?;
        policy.market()?;
        let checksum = crc32fast::hash(&std::fs::read(run.model())?);
        Ok(Self { path: path.to_path_buf(), policy, settings, history: None, checksum })
    }

    /// Reads the history as the run read its candles. That of `other` is taken if both read them in the same way.
    pub fn read_history(&mut self, args: &DeskArgs, other: Option<&Self>) -> Result<()> {
        let read = |data: &DataSettings| (data.gaps, data.adjust);
        let same = other.filter(|other| read(&other.settings.data) == read(&self.settings.data));
        self.history = match (args.data.is_empty(), same) {
            (true, _) => None,
            (false, Some(other)) => other.history.clone(),
            (false, None) => Some(crate::candles::load(&args.data, &self.settings.data)?),
        };
        if let (Some(bars), Some(candles)) = (self.market()?.bars, &self.history)
            && let Some(difference) = bars.difference_of_candles(candles)
        {
            bail!("{difference}: decisions would mean nothing");
        }
        Ok(())
    }

    /// The first line of the journal.
    pub fn header(&self) -> Result<Header> {
        let history = self.history.as_ref().map_or(0, checksum);
        Ok(Header::new(&self.market()?.scaling.symbols, self.checksum, history))
    }

    pub fn market(&self) -> Result<&MarketMetadata> {
        Ok(self.policy.market()?)
    }

    /// Checks that `shadow` can decide on all bars that this model decides on.
    pub fn check_shadow(&self, shadow: &Self) -> Result<()> {
        let (own, other) = (self.market()?, shadow.market()?);
        let [acting, place] = [self, shadow].map(|model| model.path.display());
        let symbols = |market: &MarketMetadata| market.scaling.symbols.join(", ");
        ensure!(
            own.scaling.symbols == other.scaling.symbols,
            "--shadow {place}: it trades {}, and {acting} trades {}: both need the same instruments",
            symbols(other),
            symbols(own)
        );
        if let Some(bars) = other.bars {
            let own = own.bars.unwrap_or(TrainingBars { volume: false, ..bars });
            // Volume that the shadow does not need does no harm.
            let needed = TrainingBars { volume: own.volume || bars.volume, ..bars };
            if let Some(difference) = own.difference(&needed) {
                bail!(
                    "--shadow {place}: it was trained on {difference}, unlike {acting}: both have to take the same bars"
                );
            }
        }
        Ok(())
    }
}

/// CRC-32 of all bars of candles.
fn checksum(candles: &Candles) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(candles.symbols.join("\n").as_bytes());
    for timestamp in &candles.timestamps {
        crc.update(timestamp.to_string().as_bytes());
    }
    let Candles { open, high, low, close, volume, funding, .. } = candles;
    for values in [open, high, low, close].into_iter().chain(volume).chain(funding) {
        values.iter().for_each(|value| crc.update(&value.to_le_bytes()));
    }
    candles.filled.iter().flatten().for_each(|filled| crc.update(&[u8::from(*filled)]));
    crc.finalize()
}
