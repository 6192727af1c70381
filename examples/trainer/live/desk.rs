//! A policy at work: bars in, decisions out, every decision timed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use phalanx::gpu::Gpu;
use phalanx::jiff::civil::DateTime;
use phalanx::market::ExtraFeatures;
use phalanx::policy::{Decision, Holdings, Live};
use serde::Serialize;

use super::DeskArgs;
use super::bars::ClosedBar;
use super::journal::Journal;
use super::latency::Latency;
use super::model::Model;
use super::shadow::{Shadow, journal_beside};
use crate::console::{self, note};
use crate::run::only_live;

/// A policy with its live state, its journal, and the latency of its decisions.
pub struct Desk {
    live: Live,
    symbols: Vec<String>,
    needs_volume: bool,
    journal: Option<Journal>,
    pub latency: Latency,
    shadow: Option<Shadow>,
    /// Bars that were decided on and not yet handed to the shadow.
    decided: Vec<ClosedBar>,
}

/// The bars of a journal that was replayed.
pub struct Replayed {
    pub bars: Vec<ClosedBar>,
    /// The answer to the last one.
    last: Option<Reply>,
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
    /// Loads the models and the history, and replays the journals. Returns the last decision of the journal, which may not have been
    /// answered.
    pub fn open(args: &DeskArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<(Self, Option<Reply>)> {
        only_live(&args.sets)?;
        let mut model = Model::load(&args.run, args)?;
        let mut shadow = args.shadow.as_deref().map(|run| Model::load(run, args)).transpose()?;
        if let Some(shadow) = &shadow {
            model.check_shadow(shadow)?;
            if let Some(path) = args.state.as_deref().map(journal_beside).filter(|_| !args.resume) {
                ensure!(!path.exists(), "{} exists: give --state another name", path.display());
            }
        }
        model.read_history(args, None)?;
        if let Some(shadow) = &mut shadow {
            shadow.read_history(args, Some(&model))?;
        }
        let gpu = open()?;
        let (mut desk, Replayed { bars, last }) =
            Self::start(&gpu, &model, args.state.as_deref(), args.resume, args.save_every)?;
        if args.resume {
            note!("Resumed   after {} bars", bars.len());
        }
        if let Some(shadow) = shadow {
            desk.shadow = Some(Shadow::start(&gpu, &shadow, args, &bars)?);
        }
        console::idle();
        Ok((desk, last))
    }

    /// Starts a policy after its history and, with `resume`, after the bars of its journal.
    pub fn start(
        gpu: &Gpu,
        model: &Model,
        journal: Option<&Path>,
        resume: bool,
        save_every: u64,
    ) -> Result<(Self, Replayed)> {
        let market = model.market()?;
        console::busy("computing the features of the history");
        let mut live = Live::new(gpu, &model.policy)?;
        if let Some(candles) = &model.history {
            live.warm_up(candles, &ExtraFeatures::default())?;
        }
        let limit = Duration::from_secs_f64(model.settings.live.latency_limit_ms / 1e3);
        let mut desk = Self {
            live,
            symbols: market.scaling.symbols.clone(),
            needs_volume: market.bars.is_some_and(|bars| bars.volume),
            journal: None,
            latency: Latency::new(limit)?,
            shadow: None,
            decided: Vec::new(),
        };
        let mut replayed = Replayed { bars: Vec::new(), last: None };
        match journal {
            Some(path) if resume => {
                let (journal, bars) = Journal::resume(path, &model.header()?, save_every)?;
                console::busy(format!("replaying {} bars of the journal", bars.len()));
                for bar in &bars {
                    replayed.last = Some(desk.answer(bar.clone(), Instant::now())?);
                }
                (desk.journal, replayed.bars) = (Some(journal), bars);
            }
            Some(path) => desk.journal = Some(Journal::create(path, &model.header()?, save_every)?),
            None => {}
        }
        Ok((desk, replayed))
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

    /// Account value at the last close, simulated or as the sender of the bars said.
    pub fn equity(&self) -> f64 {
        self.live.account().equity()
    }

    /// Decides on a bar, and keeps both in the journal. `arrived` is when its last part came.
    pub fn decide(&mut self, bar: ClosedBar, arrived: Instant) -> Result<Reply> {
        let kept = (self.journal.is_some() || self.shadow.is_some()).then(|| bar.clone());
        let reply = self.answer(bar, arrived).map_err(|error| match error.downcast_ref() {
            Some(phalanx::Error::DeviceLost { .. }) => anyhow::Error::new(Fatal(error)),
            _ => error,
        })?;
        if reply.decided.is_some() {
            self.latency.record(Duration::from_secs_f64(reply.latency_us / 1e6));
        }
        if let (Some(journal), Some(bar)) = (&mut self.journal, &kept) {
            let decision = reply.decided.is_some().then(|| self.live.last());
            journal.append(bar, decision).map_err(|error| anyhow::Error::new(Fatal(error)))?;
        }
        self.decided.extend(kept.filter(|_| self.shadow.is_some()));
        Ok(reply)
    }

    /// Hands the bars to the shadow, once the answers are out.
    pub fn pass_on(&mut self) {
        let bars = self.decided.drain(..);
        if let Some(shadow) = &self.shadow {
            bars.for_each(|bar| shadow.pass(bar));
        }
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

    /// Forces the journal to disk, and waits for the shadow.
    pub fn finish(&mut self) -> Result<()> {
        self.pass_on();
        self.journal.as_mut().map_or(Ok(()), Journal::sync)?;
        if let Some(shadow) = self.shadow.take() {
            shadow.finish();
        }
        Ok(())
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
