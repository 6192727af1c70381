//! The folds of a walk, and the parts of the bars that their agents trade.

use std::ops::Range;

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use phalanx::market::FEATURE_HISTORY;
use phalanx::research::{Fold, combinatorial, expanding, paths, rolling};

use super::WalkForwardArgs;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    Expanding,
    Rolling,
    /// Combinatorial purged cross-validation.
    Cpcv,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Expanding => "expanding",
            Self::Rolling => "rolling",
            Self::Cpcv => "cpcv",
        }
    }
}

/// A part of the bars that is tested without a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub bars: Range<usize>,
    /// The path on which the agents of a fold trade it, and the fold: one for walk-forward tests.
    pub traders: Vec<(usize, usize)>,
}

/// Folds and test parts.
pub struct Cut {
    pub folds: Vec<Fold>,
    pub parts: Vec<Part>,
    /// Number of paths: ways through all parts, each part traded by agents that had not seen it.
    pub paths: usize,
}

impl Cut {
    pub fn new(args: &WalkForwardArgs, bars: Range<usize>) -> Result<Self> {
        let named = |error: phalanx::Error| match error {
            phalanx::Error::Config { key, reason } => {
                let option = if key == "groups" { "folds".into() } else { key.replace('_', "-") };
                anyhow!("--{option}: {reason}")
            }
            other => other.into(),
        };
        let combines = args.scheme == Scheme::Cpcv;
        for (given, option, scheme) in [
            (args.train_fraction.is_some(), "--train-fraction", !combines),
            (args.test_groups.is_some(), "--test-groups", combines),
            (args.embargo.is_some(), "--embargo", combines),
        ] {
            ensure!(scheme || !given, "{option} means nothing with --scheme {}", args.scheme.name());
        }
        if combines {
            return Self::combinations(args, bars).map_err(named);
        }
        let cut = if args.scheme == Scheme::Expanding { expanding } else { rolling };
        let folds = cut(bars, args.folds, args.train_fraction.unwrap_or(0.5), args.purge).map_err(named)?;
        let part = |(fold, it): (usize, &Fold)| Part { bars: it.test[0].clone(), traders: vec![(0, fold)] };
        let parts = folds.iter().enumerate().map(part).collect();
        Ok(Self { folds, parts, paths: 1 })
    }

    fn combinations(args: &WalkForwardArgs, bars: Range<usize>) -> phalanx::Result<Self> {
        let size = args.test_groups.unwrap_or(2);
        // A hundredth of the bars, as Lopez de Prado suggests, but no less than the features look back.
        let embargo = args.embargo.unwrap_or(bars.len().div_ceil(100).max(FEATURE_HISTORY));
        let folds = combinatorial(bars.clone(), args.folds, size, args.purge, embargo)?;
        let paths = paths(args.folds, size)?;
        let groups = combinatorial(bars, args.folds, 1, 0, 0)?;
        let parts = groups.iter().enumerate().map(|(group, alone)| Part {
            bars: alone.test[0].clone(),
            traders: paths.iter().enumerate().map(|(path, folds)| (path, folds[group])).collect(),
        });
        Ok(Self { parts: parts.collect(), paths: paths.len(), folds })
    }

    /// From the first tested bar to the last.
    pub fn tested(&self) -> Range<usize> {
        let first = self.parts.first().map_or(0, |part| part.bars.start);
        first..self.parts.last().map_or(0, |part| part.bars.end)
    }

    /// The parts that a fold trades, each with its path.
    pub fn parts_of(&self, fold: usize) -> impl Iterator<Item = (usize, &Part)> {
        self.parts.iter().flat_map(move |part| {
            let own = part.traders.iter().filter(move |(_, trader)| *trader == fold);
            own.map(move |(path, _)| (*path, part))
        })
    }
}
