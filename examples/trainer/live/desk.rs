//! A policy at work: bars in, decisions out, every decision timed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use phalanx::gpu::Gpu;
use phalanx::jiff::civil::DateTime;
use phalanx::market::{Candles, ExtraFeatures};
use phalanx::policy::{Decision, Holdings, Live, Policy};
use serde::Serialize;

use super::DeskArgs;
use super::bars::ClosedBar;
use super::journal::{Header, Journal};
use super::latency::Latency;
use crate::console::{self, note};
use crate::folder::Folder;
use crate::run::{Settings, only_live};

/// A policy with its live state, its journal, and the latency of its decisions.
pub struct Desk {
    live: Live,
    symbols: Vec<String>,
    needs_volume: bool,
    journal: Option<Journal>,
    pub latency: Latency,
}

/// An error after which nothing may be decided any more: what a later process goes on from would be another account.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Fatal(anyhow::Error);

/// The answer to a bar.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    pub time: DateTime,
    /// Bars of every instrument that the features still lack; then there is no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bars_missing: Option<usize>,
    #[serde(flatten)]
    pub decided: Option<Decided>,
    /// Instruments that did not trade.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_bar: Vec<String>,
    pub latency_us: f64,
}

/// A decision by symbol.
#[derive(Clone, Debug, Serialize)]
pub struct Decided {
    pub targets: BTreeMap<String, f64>,
    pub probabilities: BTreeMap<String, Vec<f32>>,
    pub values: BTreeMap<String, f32>,
    pub equity: f64,
    pub units: BTreeMap<String, f64>,
    pub bankrupt: bool,
}

impl Reply {
    /// As one line; `resumed` marks the repetition of the last decision before a process ended.
    pub fn json(&self, resumed: bool) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if resumed {
            value["resumed"] = true.into();
        }
        value.to_string()
    }
}

impl Desk {
    /// Loads the model and the history, and replays the journal. Returns the last decision of the journal, which may not have been
    /// answered.
    pub fn open(args: &DeskArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<(Self, Option<Reply>)> {
        only_live(&args.sets)?;
        let run = Folder::trained(&args.run)?;
        let settings = Settings::of_live(&run.settings(), &args.sets)?;
        let policy = Policy::load(&run.model())?;
        let market = policy.market()?;
        let needs_volume = market.bars.is_some_and(|bars| bars.volume);
        let symbols = market.scaling.symbols.clone();
        let history = match args.data.is_empty() {
            true => None,
            false => Some(crate::candles::load(&args.data, &settings.data)?),
        };
        if let (Some(bars), Some(candles)) = (market.bars, &history)
            && let Some(difference) = bars.difference(candles)
        {
            anyhow::bail!("{difference}: decisions would mean nothing");
        }
        let gpu = open()?;
        console::busy("computing the features of the history");
        let mut live = Live::new(&gpu, &policy)?;
        if let Some(candles) = &history {
            live.warm_up(candles, &ExtraFeatures::default())?;
        }
        let model = crc32fast::hash(&std::fs::read(run.model())?);
        let header = Header::new(&symbols, model, history.as_ref().map_or(0, checksum));
        let latency = Latency::new(Duration::from_secs_f64(settings.live.latency_limit_ms / 1e3))?;
        let mut desk = Self { live, symbols, needs_volume, journal: None, latency };
        let mut last = None;
        if let Some(path) = &args.state {
            desk.journal = Some(if args.resume {
                let (journal, bars) = Journal::resume(path, &header, args.save_every)?;
                console::busy(format!("replaying {} bars of the journal", bars.len()));
                let count = bars.len();
                for bar in bars {
                    last = Some(desk.answer(bar, Instant::now())?);
                }
                note!("Resumed   after {count} bars");
                journal
            } else {
                Journal::create(path, &header, args.save_every)?
            });
        }
        console::idle();
        Ok((desk, last))
    }

    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    pub fn needs_volume(&self) -> bool {
        self.needs_volume
    }

    /// Time of the last bar.
    pub fn last(&self) -> Option<DateTime> {
        self.live.features().last()
    }

    /// Bars that the features still lack.
    pub fn bars_missing(&self) -> usize {
        self.live.features().missing_bars()
    }

    pub fn ready(&self) -> String {
        let symbols = self.symbols.join(", ");
        match self.bars_missing() {
            0 => symbols,
            bars => {
                format!("{symbols}; decisions begin after {bars} bars, or at once with a history (--data)")
            }
        }
    }

    /// Decides on a bar, and keeps it in the journal. `arrived` is when its last part came.
    pub fn decide(&mut self, bar: ClosedBar, arrived: Instant) -> Result<Reply> {
        let kept = self.journal.is_some().then(|| bar.clone());
        let reply = self.answer(bar, arrived).map_err(|error| match error.downcast_ref() {
            Some(phalanx::Error::DeviceLost { .. }) => anyhow::Error::new(Fatal(error)),
            _ => error,
        })?;
        if reply.decided.is_some() {
            self.latency.record(Duration::from_secs_f64(reply.latency_us / 1e6));
        }
        if let (Some(journal), Some(bar)) = (&mut self.journal, kept) {
            journal.append(&bar).map_err(|error| anyhow::Error::new(Fatal(error)))?;
        }
        Ok(reply)
    }

    fn answer(&mut self, bar: ClosedBar, arrived: Instant) -> Result<Reply> {
        let ClosedBar { time, mut bars, holdings } = bar;
        let without = self.symbols.iter().zip(&bars).filter(|(_, bar)| bar.is_none());
        let without_bar = without.map(|(symbol, _)| symbol.clone()).collect();
        let holdings = holdings.as_ref().map(|(equity, units)| Holdings { equity: *equity, units });
        let decided = self.live.decide(time, &mut bars, &[], holdings)?;
        let latency_us = arrived.elapsed().as_secs_f64() * 1e6;
        let decided = decided.map(|decision| Decided::new(&self.symbols, decision));
        let missing = self.live.features().missing_bars();
        let bars_missing = decided.is_none().then_some(missing);
        Ok(Reply { time, bars_missing, decided, without_bar, latency_us })
    }

    /// Forces the journal to disk.
    pub fn finish(&mut self) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::sync)
    }

    pub fn summary(&self) -> String {
        self.latency.summary()
    }
}

impl Decided {
    fn new(symbols: &[String], decision: &Decision) -> Self {
        let numbers = decision.probabilities.len() / symbols.len();
        let named = |values: &[f64]| symbols.iter().cloned().zip(values.iter().copied()).collect();
        Self {
            targets: named(&decision.targets),
            probabilities: symbols
                .iter()
                .cloned()
                .zip(decision.probabilities.chunks_exact(numbers).map(<[f32]>::to_vec))
                .collect(),
            values: symbols.iter().cloned().zip(decision.values.iter().copied()).collect(),
            equity: decision.equity,
            units: named(&decision.units),
            bankrupt: decision.bankrupt,
        }
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
