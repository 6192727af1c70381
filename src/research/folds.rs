//! Folds of walk-forward tests and of combinatorial purged cross-validation.
//!
//! The definitions of purging, embargo and paths are those of Lopez de Prado, *Advances in Financial Machine Learning* (2018), chapters 7
//! and 12. A decision at a bar fills at the next open and is marked at the next close, and an episode stays within one range of training
//! bars: its last reward ends with the last training bar. So the rewards of [`Trading`](crate::env::Trading) need no
//! purging; `purge` is for rewards or labels that reach further. Features look back, so that a training bar shortly after a
//! test has seen bars of it: `embargo` leaves such bars out.

use std::ops::Range;

use crate::{Error, Result};

/// Fewest bars of a part: an order placed at one bar fills at the next.
const MIN_BARS: usize = crate::market::Splits::MIN_BARS;

/// Most groups of [`combinatorial`].
const MOST_GROUPS: usize = 64;

/// Most folds of [`combinatorial`].
const MOST_FOLDS: usize = 100_000;

/// Bars to train on and bars to test on, each as ascending ranges with bars between them. No bar is in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Bars to train on.
    pub train: Vec<Range<usize>>,
    /// Bars to test on.
    pub test: Vec<Range<usize>>,
}

/// Folds of a walk-forward test with a growing training part. The first `train_fraction` of `bars` trains the first fold; the rest is
/// cut into `folds` consecutive test parts of equal size (the first ones have a bar more where that is impossible). Every fold trains
/// on all bars before its test part but the last `purge` of them.
///
/// ```
/// let folds = phalanx::research::expanding(0..100, 5, 0.5, 0)?;
/// assert_eq!((&folds[1].train[..], &folds[1].test[..]), (&[0..60][..], &[60..70][..]));
/// # Ok::<(), phalanx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for a fraction that is not between 0 and 1 or no fold, [`Error::Data`] if a part has fewer than two bars.
pub fn expanding(bars: Range<usize>, folds: usize, train_fraction: f64, purge: usize) -> Result<Vec<Fold>> {
    walk_forward(bars, folds, train_fraction, purge, false)
}

/// The same with a training part that keeps the length of the first one and moves on with the test parts.
///
/// # Errors
/// As [`expanding`].
pub fn rolling(bars: Range<usize>, folds: usize, train_fraction: f64, purge: usize) -> Result<Vec<Fold>> {
    walk_forward(bars, folds, train_fraction, purge, true)
}

fn walk_forward(
    bars: Range<usize>,
    folds: usize,
    train_fraction: f64,
    purge: usize,
    rolling: bool,
) -> Result<Vec<Fold>> {
    if folds == 0 {
        return Err(Error::config("folds", "0 is too few: a walk-forward test has at least one fold"));
    }
    if !(train_fraction > 0.0 && train_fraction < 1.0) {
        let reason =
            format!("{train_fraction} is not between 0 and 1; 0.5 trains the first fold on half of the bars");
        return Err(Error::config("train_fraction", reason));
    }
    // The conversion saturates, and the product is at most the number of bars.
    let first = (bars.len() as f64 * train_fraction).round() as usize;
    let most = (bars.len() - first) / MIN_BARS;
    if folds > most {
        return Err(Error::Data(format!(
            "{folds} folds are too many: {} of the {} bars are tested, and a fold has at least {MIN_BARS} of them",
            bars.len() - first,
            bars.len()
        )));
    }
    let tests = parts(bars.start + first..bars.end, folds);
    let fold = |test: Range<usize>| {
        let start = if rolling { test.start - first } else { bars.start };
        let train = start..test.start.saturating_sub(purge).max(start);
        Fold { train: vec![train], test: vec![test] }
    };
    let all: Vec<_> = tests.map(fold).collect();
    check(&all, bars.len())?;
    Ok(all)
}

/// Folds of combinatorial purged cross-validation: `bars` are cut into `groups` of equal size, and every choice of `test_groups` of them
/// is tested by a fold that trains on the others, in lexicographic order. The last `purge` bars before a test and the first
/// `purge + embargo` bars after one are left out, and training bars between two tests that are fewer than two.
///
/// # Errors
/// [`Error::Config`] unless `1 <= test_groups < groups <= 64`, and for more than 100,000 folds; [`Error::Data`] if a part has fewer than
/// two bars.
pub fn combinatorial(
    bars: Range<usize>,
    groups: usize,
    test_groups: usize,
    purge: usize,
    embargo: usize,
) -> Result<Vec<Fold>> {
    let choices = choices(groups, test_groups)?;
    let parts: Vec<_> = parts(bars.clone(), groups).collect();
    let fold = |chosen: &[usize]| {
        let test = merged(chosen.iter().map(|group| parts[*group].clone()));
        Fold { train: training(&bars, &test, purge, embargo), test }
    };
    let all: Vec<_> = choices.iter().map(|chosen| fold(chosen)).collect();
    check(&all, bars.len())?;
    Ok(all)
}

/// The paths of [`combinatorial`], `[path][group]`: the index of the fold whose test gives a path its decisions in a group. Every path
/// covers all groups, and every test of a fold belongs to exactly one of the C(groups - 1, test_groups - 1) paths.
///
/// # Errors
/// [`Error::Config`] as [`combinatorial`].
pub fn paths(groups: usize, test_groups: usize) -> Result<Vec<Vec<usize>>> {
    let choices = choices(groups, test_groups)?;
    let testing = |group: usize| {
        let folds = choices.iter().enumerate().filter(move |(_, chosen)| chosen.contains(&group));
        folds.map(|(fold, _)| fold).collect::<Vec<_>>()
    };
    let by_group: Vec<_> = (0..groups).map(testing).collect();
    Ok((0..by_group[0].len()).map(|path| by_group.iter().map(|folds| folds[path]).collect()).collect())
}

/// `bars` in `count` consecutive parts, the first ones a bar longer than the others where they cannot be equal.
fn parts(bars: Range<usize>, count: usize) -> impl Iterator<Item = Range<usize>> {
    let (size, longer) = (bars.len() / count.max(1), bars.len() % count.max(1));
    let start = move |part: usize| bars.start + part * size + part.min(longer);
    (0..count).map(move |part| start(part)..start(part + 1))
}

/// All choices of `size` of `count` indices, in lexicographic order.
fn choices(count: usize, size: usize) -> Result<Vec<Vec<usize>>> {
    if !(2..=MOST_GROUPS).contains(&count) {
        return Err(Error::config("groups", format!("{count} is out of range: from 2 to {MOST_GROUPS}")));
    }
    if !(1..count).contains(&size) {
        let reason = format!("{size} of {count} groups leaves nothing to test or nothing to train on");
        return Err(Error::config("test_groups", reason));
    }
    let mut all = vec![(0..size).collect::<Vec<_>>()];
    while let Some(place) = (0..size).rev().find(|place| all[all.len() - 1][*place] < count - size + place) {
        let mut next = all[all.len() - 1].clone();
        next[place] += 1;
        for later in place + 1..size {
            next[later] = next[later - 1] + 1;
        }
        if all.len() == MOST_FOLDS {
            let reason = format!("{size} of {count} groups are more than {MOST_FOLDS} folds");
            return Err(Error::config("test_groups", reason));
        }
        all.push(next);
    }
    Ok(all)
}

/// Ascending ranges, neighbours joined.
fn merged(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match all.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => all.push(range),
        }
    }
    all
}

/// The bars outside the tests that are neither purged nor under embargo.
fn training(bars: &Range<usize>, tests: &[Range<usize>], purge: usize, embargo: usize) -> Vec<Range<usize>> {
    let after = |test: &Range<usize>| test.end.saturating_add(purge).saturating_add(embargo);
    let starts = std::iter::once(bars.start).chain(tests.iter().map(after));
    let ends = tests.iter().map(|test| test.start.saturating_sub(purge)).chain([bars.end]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| range.len() >= MIN_BARS).collect()
}

fn check(folds: &[Fold], bars: usize) -> Result<()> {
    let short =
        |ranges: &[Range<usize>]| ranges.iter().map(ExactSizeIterator::len).min().unwrap_or(0) < MIN_BARS;
    for (index, fold) in folds.iter().enumerate() {
        for (part, ranges) in [("train", &fold.train), ("test", &fold.test)] {
            if short(ranges) {
                return Err(Error::Data(format!(
                    "fold {} of {} has fewer than {MIN_BARS} bars to {part} on: {bars} bars are too few for so many folds, or too \
                     many are purged or under embargo",
                    index + 1,
                    folds.len()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::research::testing::golden;

    fn bars_of(ranges: &[Range<usize>]) -> Vec<usize> {
        ranges.iter().cloned().flatten().collect()
    }

    #[test]
    fn walk_forward_tests_every_later_bar_once_and_trains_before_it() {
        for (bars, folds, fraction, purge) in [(7..107, 5, 0.5, 0), (0..101, 6, 0.37, 3), (3..40, 1, 0.8, 1)]
        {
            let first = (bars.len() as f64 * fraction).round() as usize;
            for rolls in [false, true] {
                let all = walk_forward(bars.clone(), folds, fraction, purge, rolls).unwrap();
                let tested: Vec<_> = all.iter().flat_map(|fold| bars_of(&fold.test)).collect();
                assert_eq!(tested, (bars.start + first..bars.end).collect::<Vec<_>>());
                for fold in &all {
                    let (train, test) = (&fold.train[0], &fold.test[0]);
                    assert_eq!(train.end + purge, test.start);
                    assert_eq!(train.start, if rolls { test.start - first } else { bars.start });
                }
                let sizes: Vec<_> = all.iter().map(|fold| fold.test[0].len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn combinatorial_folds_purge_and_embargo() {
        let all = combinatorial(0..60, 6, 2, 1, 3).unwrap();
        assert_eq!(all.len(), 15);
        assert_eq!((bars_of(&all[0].train), bars_of(&all[0].test)), ((24..60).collect(), (0..20).collect()));
        // Groups 1 and 3.
        assert_eq!(all[6], Fold { train: vec![0..9, 24..29, 44..60], test: vec![10..20, 30..40] });
        for fold in &all {
            for bar in bars_of(&fold.train) {
                for test in &fold.test {
                    assert!(bar + 1 < test.start || bar >= test.end + 4, "bar {bar} and {test:?}");
                }
            }
        }
        // An embargo longer than the gap between two tests.
        let all = combinatorial(0..60, 6, 2, 0, 15).unwrap();
        assert_eq!(all[6].train, [0..10, 55..60]);
    }

    fn ranges(list: &serde_json::Value) -> Vec<Range<usize>> {
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        list.as_array().unwrap().iter().map(|range| number(&range[0])..number(&range[1])).collect()
    }

    /// Purging and embargo of skfolio; groups and, where an embargo counts from the end of the purged bars, training of holdout.
    #[test]
    fn folds_are_those_of_the_original_packages() {
        let all = golden("cpcv");
        for case in all.as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let (purge, embargo) = (number("purge"), number("embargo"));
            let splits = case["splits"].as_array().unwrap();
            let [bars, groups, test_groups] = ["bars", "groups", "test_groups"].map(number);
            assert_eq!(paths(groups, test_groups).unwrap().len(), number("paths"));
            if case["library"] == "skfolio" {
                for split in splits {
                    let test = merged(ranges(&split["test"]).into_iter());
                    assert_eq!(training(&(0..bars), &test, purge, embargo), ranges(&split["train"]));
                }
            } else {
                let later = embargo.saturating_sub(purge);
                let own = combinatorial(0..bars, groups, test_groups, purge, later).unwrap();
                assert_eq!(own.len(), splits.len());
                for (own, split) in own.iter().zip(splits) {
                    assert_eq!(own.test, merged(ranges(&split["test"]).into_iter()));
                    assert_eq!(own.train, ranges(&split["train"]));
                }
            }
        }
        // Whole tests without a purged bar; skfolio moves its tests where bars are purged.
        let all = golden("walk_forward");
        let case = all.as_array().unwrap().iter().find(|case| case["purge"] == 0).unwrap();
        assert_eq!((&case["train"], &case["test"]), (&15.into(), &6.into()));
        for (own, split) in
            rolling(0..39, 4, 15.0 / 39.0, 0).unwrap().iter().zip(case["splits"].as_array().unwrap())
        {
            let range = |part: &str| ranges(&serde_json::Value::Array(vec![split[part].clone()]));
            assert_eq!((&own.train, &own.test), (&range("train"), &range("test")));
        }
    }

    #[test]
    fn every_test_belongs_to_one_path() {
        for (groups, size, count) in [(6, 2, 5), (6, 1, 1), (10, 3, 36), (4, 3, 3)] {
            let paths = paths(groups, size).unwrap();
            assert_eq!(paths.len(), count);
            let choices = choices(groups, size).unwrap();
            let mut used: Vec<_> = paths.iter().flat_map(|path| path.iter().copied().enumerate()).collect();
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), groups * count, "each path covers all groups, no test is used twice");
            assert_eq!(used.len(), choices.len() * size);
            assert!(used.iter().all(|(group, fold)| choices[*fold].contains(group)));
        }
    }

    #[test]
    fn too_little_is_refused() {
        let text = |result: Result<Vec<Fold>>| result.unwrap_err().to_string();
        assert!(
            text(expanding(0..10, 6, 0.5, 0)).contains("6 folds are too many: 5 of the 10 bars are tested")
        );
        assert!(text(expanding(0..100, usize::MAX, 0.5, 0)).contains("too many"));
        assert!(text(combinatorial(0..7, 6, 2, 0, 0)).contains("fewer than 2 bars to test on"));
        assert!(text(expanding(0..100, 2, 0.5, 49)).contains("fewer than 2 bars to train on"));
        assert!(text(rolling(0..0, 1, 0.5, 0)).contains("too many"));
        assert!(text(expanding(0..10, 0, 0.5, 0)).contains("`folds`"));
        for fraction in [0.0, 1.0, f64::NAN, -1.0, 1e300] {
            assert!(text(rolling(0..10, 1, fraction, 0)).contains("`train_fraction`"));
        }
        for (groups, size) in [(0, 0), (1, 1), (6, 0), (6, 6), (65, 2), (usize::MAX, 2), (64, 32)] {
            assert!(matches!(combinatorial(0..1000, groups, size, 0, 0), Err(Error::Config { .. })));
            assert!(matches!(paths(groups, size), Err(Error::Config { .. })));
        }
        assert!(text(combinatorial(0..60, 6, 2, usize::MAX, usize::MAX)).contains("to train on"));
    }
}
