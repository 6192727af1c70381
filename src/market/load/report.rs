//! Findings made while candles were loaded.

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};
use std::fmt;

use super::super::timestamp::show;
use crate::text::{self, shown};

/// Findings and corrections of [`Candles::load_with`](crate::market::Candles::load_with). Displayed as lines of text, one for a finding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// The notes, in the order of files and instruments.
    pub notes: Vec<LoadNote>,
}

/// One finding about one file or instrument.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadNote {
    /// The file, or the symbol of the instrument.
    pub subject: String,
    /// The finding.
    pub finding: Finding,
}

/// Something in a candle file that the reader had to decide or correct.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// The file has the format of this source.
    Source(&'static str),
    /// Volume was read from the column `used`, although the file has `others`.
    Volume {
        /// Header of the column that was read.
        used: String,
        /// Headers of the columns that were not.
        others: Vec<String>,
    },
    /// The volume of all tickers of the file was left out, because these have none.
    VolumeLeftOut {
        /// Tickers without a volume.
        tickers: Vec<String>,
    },
    /// Funding rates were read from this column.
    Funding {
        /// Header of the column.
        column: String,
    },
    /// The instrument has no column of funding rates, although others have one: its rates are 0.
    NoFunding,
    /// Daily bars are stamped at this time of day in UTC, not at midnight, without a known time zone: their dates may not be those
    /// of the exchange.
    DaysInUtc {
        /// Time of day of the first such bar.
        time: Time,
    },
    /// Numbers have a decimal comma.
    DecimalComma,
    /// The latest bar comes first; the bars were reversed.
    NewestFirst,
    /// Rows without any price were dropped.
    Dropped {
        /// Number of rows.
        rows: u64,
    },
    /// Opens and closes that were outside the bar's range by rounding were moved to its bound.
    Clamped {
        /// Number of prices.
        prices: u64,
    },
    /// The instrument has no row with prices and was left out.
    NoBars,
    /// The file is a pipe, a socket or a device.
    NotRegular {
        /// Whether it was read, because it was named; those of a directory are left out.
        read: bool,
    },
    /// The instrument was joined from several files.
    Joined {
        /// Number of files.
        files: usize,
        /// Bars that two files have alike.
        repeated: usize,
    },
    /// The names of these files differ by a date or a number only, but the files were not joined to one instrument.
    NotJoined {
        /// The part that the names have in common.
        common: String,
        /// Why they were not joined.
        reason: NotJoinedReason,
    },
    /// Prices were multiplied by adjusted close over close.
    Adjusted {
        /// Header of the adjusted close.
        column: String,
        /// The smallest and the largest factor.
        factors: [f64; 2],
        /// Splits for which the volumes before them were adjusted too.
        splits: usize,
    },
    /// The file has an adjusted close that was not used, as `adjust = "none"` demands.
    NotAdjusted {
        /// Header of the adjusted close.
        column: String,
    },
    /// A jump of the price from one bar to the next that looks like a split.
    LooksLikeSplit {
        /// Bar after the jump.
        timestamp: DateTime,
        /// New shares for an old one; below 1 for a reverse split.
        ratio: f64,
        /// Close before and open after the jump.
        prices: [f64; 2],
    },
}

/// Why files with similar names were not joined to one instrument.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum NotJoinedReason {
    /// Their bars overlap and differ, as those of two futures contracts do.
    BarsDiffer,
    /// Their names differ by a number, and their bars have different median distances in time: hours and days, for instance.
    Spacing([SignedDuration; 2]),
    /// Only some of them have this, for instance "an adjusted close".
    Column(&'static str),
}

impl fmt::Display for NotJoinedReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarsDiffer => {
                write!(out, "their bars overlap. If they are one instrument, keep each bar in one file")
            }
            Self::Spacing([one, other]) => write!(
                out,
                "their bars are {one:#} and {other:#} apart. If they are one instrument, load files of one bar length only"
            ),
            Self::Column(column) => write!(
                out,
                "only some of them have {column}. If they are one instrument, add the column to all of them or \
                 remove it"
            ),
        }
    }
}

impl Finding {
    /// Whether the user should look at it before trusting results.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::NoBars
                | Self::NotJoined { .. }
                | Self::LooksLikeSplit { .. }
                | Self::VolumeLeftOut { .. }
                | Self::DaysInUtc { .. }
                | Self::NotRegular { read: false }
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(name) => write!(out, "read as {name}"),
            Self::NotRegular { read: true } => write!(out, "read, although it is not a regular file"),
            Self::NotRegular { read: false } => {
                write!(out, "left out, because it is not a regular file; name it itself to read it")
            }
            Self::Volume { used, others } => {
                write!(out, "volume is `{}`", shown(used))?;
                let others = text::list(others.iter().map(String::as_str), "`");
                if others.is_empty() { Ok(()) } else { write!(out, "; {others} not used") }
            }
            Self::VolumeLeftOut { tickers } => {
                let mut names = subjects(tickers.iter().map(String::as_str));
                if tickers.len() > MOST_SUBJECTS {
                    names += &format!(" and {} more", tickers.len() - MOST_SUBJECTS);
                }
                write!(
                    out,
                    "no volume was read, because the header has no volume of {names}: add the column (0 if unknown), or remove \
                     these tickers"
                )
            }
            Self::Funding { column } => write!(out, "funding rates are `{}`", shown(column)),
            Self::NoFunding => {
                write!(
                    out,
                    "no column of funding rates, which other instruments have: the rate is 0 at every bar"
                )
            }
            Self::DaysInUtc { time } => write!(
                out,
                "daily bars are stamped {} in UTC, so that their dates may be a day off from the exchange's: write dates, or \
                 local timestamps without a time zone",
                time.strftime("%H:%M")
            ),
            Self::DecimalComma => write!(out, "numbers have a decimal comma"),
            Self::NewestFirst => write!(out, "the newest bar comes first: reversed"),
            Self::Dropped { rows: 1 } => write!(out, "1 row without prices dropped"),
            Self::Dropped { rows } => write!(out, "{rows} rows without prices dropped"),
            Self::Clamped { prices: 1 } => {
                write!(out, "1 open or close lay outside low..high by rounding and was clamped")
            }
            Self::Clamped { prices } => {
                write!(out, "{prices} opens or closes lay outside low..high by rounding and were clamped")
            }
            Self::NoBars => write!(out, "no row has prices: the instrument is left out"),
            Self::Joined { files, repeated } => {
                write!(out, "joined from {files} files")?;
                match repeated {
                    0 => Ok(()),
                    1 => write!(out, "; 1 bar is in two of them"),
                    _ => write!(out, "; {repeated} bars are in two of them"),
                }
            }
            Self::NotJoined { common, reason } => write!(
                out,
                "not joined to one instrument `{}`, although the file names differ by a date or number only: {reason}",
                shown(common)
            ),
            Self::Adjusted { column, factors: [least, most], splits } => {
                write!(out, "prices adjusted by `{}` / close, {least:.4} to {most:.4}", shown(column))?;
                match splits {
                    0 => Ok(()),
                    1 => write!(out, "; volume adjusted for 1 split"),
                    _ => write!(out, "; volume adjusted for {splits} splits"),
                }
            }
            Self::NotAdjusted { column } => write!(out, "`{}` not used (adjust = none)", shown(column)),
            Self::LooksLikeSplit { timestamp, ratio, prices: [before, after] } => {
                let split = if *ratio >= 1.0 {
                    format!("{ratio}:1 split")
                } else {
                    format!("1:{} reverse split", (1.0 / ratio).round())
                };
                write!(
                    out,
                    "the price jumps from {before} to {after} at {}, which looks like a {split} that is not adjusted; use adjusted \
                     prices, or add a column `adj close`",
                    show(*timestamp)
                )
            }
        }
    }
}

/// Lines of one kind of finding; the others are counted.
const MOST_LINES: usize = 5;
/// Subjects named on a line; the others are counted.
const MOST_SUBJECTS: usize = 3;

/// The first subjects, separated by commas.
fn subjects<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.take(MOST_SUBJECTS).map(shown).collect::<Vec<_>>().join(", ")
}

impl LoadReport {
    pub(super) fn note(&mut self, subject: impl Into<String>, finding: Finding) {
        self.notes.push(LoadNote { subject: subject.into(), finding });
    }

    /// A line for each finding that is no warning: equal ones share a line, and of many only the first are given in full.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        self.lines(false)
    }

    /// The same for the findings that are warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.lines(true)
    }

    fn lines(&self, warnings: bool) -> Vec<String> {
        let mut groups: Vec<(std::mem::Discriminant<Finding>, String, Vec<&str>)> = Vec::new();
        let mut index = std::collections::HashMap::new();
        for LoadNote { subject, finding } in &self.notes {
            if finding.is_warning() != warnings {
                continue;
            }
            let text = finding.to_string();
            let at = *index.entry(text.clone()).or_insert(groups.len());
            match groups.get_mut(at) {
                Some((_, _, subjects)) => subjects.push(subject),
                None => groups.push((std::mem::discriminant(finding), text, vec![subject])),
            }
        }
        let mut counts: Vec<(std::mem::Discriminant<Finding>, usize)> = Vec::new();
        let mut lines = Vec::new();
        for (kind, text, subjects) in &groups {
            let seen = match counts.iter_mut().find(|(it, _)| it == kind) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    counts.push((*kind, 1));
                    1
                }
            };
            if seen > MOST_LINES {
                continue;
            }
            let mut names = self::subjects(subjects.iter().copied());
            if subjects.len() > MOST_SUBJECTS {
                names += &format!(" and {} more", subjects.len() - MOST_SUBJECTS);
            }
            lines.push(format!("{names}: {text}"));
            let all = groups.iter().filter(|(it, ..)| it == kind).count();
            if seen == MOST_LINES && all > MOST_LINES {
                lines.push(format!("... and {} more like it", all - MOST_LINES));
            }
        }
        lines
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.lines(true).into_iter().map(|line| format!("warning: {line}"));
        let lines: Vec<String> = self.lines(false).into_iter().chain(warnings).collect();
        out.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_findings_share_a_line_and_many_are_counted() {
        let mut report = LoadReport::default();
        for index in 0..5 {
            report.note(format!("{index}.csv"), Finding::Source("Stooq"));
        }
        for rows in 1..=8 {
            report.note(format!("S{rows}"), Finding::Dropped { rows });
        }
        report.note("C", Finding::Clamped { prices: 1 });
        let reason = NotJoinedReason::BarsDiffer;
        report.note("A", Finding::NotJoined { common: "A".into(), reason });
        let lines = report.findings();
        assert_eq!(lines[0], "0.csv, 1.csv, 2.csv and 2 more: read as Stooq");
        assert_eq!(lines[1..3], ["S1: 1 row without prices dropped", "S2: 2 rows without prices dropped"]);
        assert_eq!(lines[6], "... and 3 more like it");
        assert_eq!(lines[7], "C: 1 open or close lay outside low..high by rounding and was clamped");
        assert_eq!(lines.len(), 8);
        assert_eq!(report.warnings().len(), 1);
        assert!(report.to_string().contains("\nwarning: A: not joined"), "{report}");
    }
}
