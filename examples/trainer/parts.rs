//! The bars that a run trains on, those that choose its model, and those that are held out.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use phalanx::env::Episodes;
use phalanx::market::{Candles, FEATURE_HISTORY, MarketData, Scaling, Splits, parse_timestamp};

use crate::run::{DataSettings, EvaluationSettings, end_of};

/// Training and held-out bars of a run, each as ascending ranges with bars between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub train: Vec<Range<usize>>,
    pub test: Vec<Range<usize>>,
}

impl Parts {
    /// Cuts the candles as the settings say.
    pub fn new(settings: &DataSettings, candles: &Candles) -> Result<Self> {
        if !settings.held_out.is_empty() {
            return Self::around(settings, candles);
        }
        let moment =
            |key: &str, date: &String| parse_timestamp(date).with_context(|| format!("setting `data.{key}`"));
        let mut splits = match &settings.test_from {
            Some(date) => Splits::by_date(candles, moment("test_from", date)?)?,
            None => Splits::by_fraction(candles.bars(), settings.train_fraction)?,
        };
        let after = |key: &str, date: &String| -> Result<usize> {
            Ok(candles.index_at_or_after(end_of(date).with_context(|| format!("setting `data.{key}`"))?))
        };
        let Splits { train, test } = &mut splits;
        if let Some(date) = &settings.train_from {
            train.start = candles.index_at_or_after(moment("train_from", date)?);
        }
        if let Some(date) = &settings.train_to {
            train.end = after("train_to", date)?;
            ensure!(
                train.end <= test.start,
                "setting `data.train_to`: {date} is not before the first held-out bar, {}",
                candles.timestamps[test.start]
            );
        }
        if let Some(date) = &settings.test_to {
            test.end = after("test_to", date)?;
        }
        enough(train.len(), "training", "`data.train_from` and `data.train_to`", candles)?;
        enough(test.len(), "held-out", "`data.test_from` and `data.test_to`", candles)?;
        Ok(Self { train: vec![splits.train], test: vec![splits.test] })
    }

    /// Trains before, between and after the periods that are held out.
    fn around(settings: &DataSettings, candles: &Candles) -> Result<Self> {
        const KEY: &str = "setting `data.held_out`";
        let bars = settings.bars(candles)?;
        let (mut train, mut test) = (Vec::new(), Vec::new());
        let mut next = bars.start;
        for [from, to] in &settings.held_out {
            let start = candles.index_at_or_after(parse_timestamp(from).context(KEY)?);
            let end = candles.index_at_or_after(end_of(to).context(KEY)?);
            ensure!(
                bars.start <= start && next <= start && start < end && end <= bars.end,
                "{KEY}: {from} to {to} is not a period of the bars from {} to {} that comes after the one before; `data.train_from` and \
                 `data.test_to` bound them",
                candles.timestamps[bars.start.min(candles.bars() - 1)],
                candles.timestamps[bars.end.clamp(1, candles.bars()) - 1]
            );
            train.push(next..start);
            test.push(start..end);
            next = end;
        }
        train.push(next..bars.end);
        train.retain(|range| range.len() >= Splits::MIN_BARS);
        let count = train.iter().map(ExactSizeIterator::len).sum();
        enough(count, "training", "`data.held_out`, `data.train_from` and `data.test_to`", candles)?;
        Ok(Self { train, test })
    }

    /// One past the last bar of all parts.
    pub fn end(&self) -> usize {
        self.train.iter().chain(&self.test).map(|range| range.end).max().unwrap_or(0)
    }

    /// The longest range of training bars.
    pub fn longest_trained(&self) -> Range<usize> {
        self.train.iter().max_by_key(|range| range.len()).cloned().unwrap_or_default()
    }

    /// The first held-out bar.
    pub fn first_held_out(&self) -> usize {
        self.test.first().map_or(0, |range| range.start)
    }
}

fn enough(bars: usize, part: &str, keys: &str, candles: &Candles) -> Result<()> {
    ensure!(
        bars >= Splits::MIN_BARS,
        "{keys} leave {bars} {part} bars, and at least {} are needed; the candles cover {} to {}",
        Splits::MIN_BARS,
        candles.timestamps[0],
        candles.timestamps[candles.bars() - 1]
    );
    Ok(())
}

/// Fewest bars that a model is chosen by, where there is a longer range than that.
const LEAST_EVALUATED: usize = 20;

/// Training bars without those that choose the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    pub ranges: Vec<Range<usize>>,
    /// The bars that are set aside for evaluations, if there are any.
    pub evaluated: Option<Range<usize>>,
}

impl Trained {
    /// If evaluation is enabled, sets its fraction of the training bars aside: the end of the last range that has enough of them, or
    /// all of that range if it has fewer. Ranges of fewer than 20 bars choose no model, unless all are so short.
    pub fn new(settings: &EvaluationSettings, train: &[Range<usize>]) -> Self {
        let bars: usize = train.iter().map(ExactSizeIterator::len).sum();
        let count = ((bars as f64 * settings.fraction).round() as usize).max(2);
        let long = |range: &Range<usize>| range.len() >= count.min(LEAST_EVALUATED);
        let longest = || (0..train.len()).max_by_key(|index| train[*index].len());
        let Some(chosen) = train.iter().rposition(long).or_else(longest).filter(|_| settings.every > 0)
        else {
            return Self { ranges: train.to_vec(), evaluated: None };
        };
        let mut ranges = train.to_vec();
        let range = ranges[chosen].clone();
        let middle = range.end.saturating_sub(count).max(range.start);
        if middle > range.start || ranges.len() == 1 {
            ranges[chosen] = range.start..middle;
        } else {
            ranges.remove(chosen);
        }
        Self { ranges, evaluated: Some(middle..range.end) }
    }

    /// Steps of the longest episode that fits into a range, as far as the history tells that features need.
    pub fn longest_episode(&self) -> usize {
        let steps = |range: &Range<usize>| range.end.saturating_sub(range.start.max(FEATURE_HISTORY) + 1);
        self.ranges.iter().map(steps).max().unwrap_or(0)
    }

    pub fn scaling(&self) -> Scaling {
        match &self.ranges[..] {
            [one] => Scaling::Fit(one.clone()),
            several => Scaling::FitWithin(several.to_vec()),
        }
    }

    /// The ranges without the bars that have no features. Of several, those that are too short for an episode are left out.
    pub fn tradable(&self, data: &MarketData, episode_length: u32) -> Vec<Range<usize>> {
        let clipped = |range: &Range<usize>| range.start.max(data.first_bar())..range.end;
        match &self.ranges[..] {
            [one] => vec![clipped(one)],
            several => {
                let long = |range: &Range<usize>| range.len() > episode_length as usize;
                several.iter().map(clipped).filter(long).collect()
            }
        }
    }
}

/// Episodes that start at random bars of these ranges.
pub fn episodes(ranges: &[Range<usize>]) -> Episodes {
    match ranges {
        [one] => Episodes::Random(one.clone()),
        several => Episodes::Within(several.to_vec()),
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a range of bars is meant")]
mod tests {
    use jiff::ToSpan;
    use ndarray::Array2;

    use super::*;

    fn daily(bars: usize) -> Candles {
        let start = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0);
        let days = (0..bars).map(|bar| start + (bar as i64).days()).collect();
        let ones = Array2::ones((1, bars));
        let [open, high, low] = [(); 3].map(|()| ones.clone());
        Candles::new(vec!["A".into()], days, open, high, low, ones, None).unwrap()
    }

    fn parts(held_out: &[[&str; 2]]) -> Result<Parts> {
        let held_out = held_out.iter().map(|period| period.map(String::from)).collect();
        Parts::new(&DataSettings { held_out, ..DataSettings::default() }, &daily(31))
    }

    #[test]
    fn periods_are_held_out_and_the_rest_is_trained_on() {
        let got = parts(&[["2020-01-05", "2020-01-09"], ["2020-01-11", "2020-01-12"]]).unwrap();
        // The bar between the two is too short an episode for anything.
        assert_eq!(got, Parts { train: vec![0..4, 12..31], test: vec![4..9, 10..12] });
        assert_eq!((got.end(), got.first_held_out()), (31, 4));
        let got = parts(&[["2020-01-01", "2020-01-20"]]).unwrap();
        assert_eq!(got, Parts { train: vec![20..31], test: vec![0..20] });
        for (wrong, said) in [
            (&[["2020-01-09", "2020-01-05"]][..], "2020-01-09 to 2020-01-05 is not a period"),
            (&[["2020-01-05", "2020-01-09"], ["2020-01-09", "2020-01-12"]], "comes after the one before"),
            (&[["2020-01-01", "2020-01-31"]], "leave 0 training bars"),
            (&[["2021-01-01", "2021-01-31"]], "is not a period"),
        ] {
            let error = format!("{:#}", parts(wrong).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn evaluation_bars_are_the_last_training_bars() {
        let evaluation = |every| EvaluationSettings { every, fraction: 0.2, ..EvaluationSettings::default() };
        let trained = |every, train: &[Range<usize>]| Trained::new(&evaluation(every), train);
        let one = 0..100;
        let whole = Trained { ranges: vec![one.clone()], evaluated: None };
        assert_eq!(trained(0, std::slice::from_ref(&one)), whole);
        let cut = Trained { ranges: vec![0..80], evaluated: Some(80..100) };
        assert_eq!(trained(5, std::slice::from_ref(&one)), cut);
        let two = trained(5, &[0..50, 60..110]);
        assert_eq!(two, Trained { ranges: vec![0..50, 60..90], evaluated: Some(90..110) });
        assert_eq!((two.longest_episode(), cut.longest_episode()), (29, 79 - FEATURE_HISTORY));
        let early = Trained { ranges: vec![0..20], evaluated: None };
        assert_eq!(early.longest_episode(), 0, "features need more");
        // A short last range evaluates as a whole, and a very short one is trained on.
        let short = trained(5, &[0..140, 150..175]);
        assert_eq!(short, Trained { ranges: vec![0..140], evaluated: Some(150..175) });
        let shorter = trained(5, &[0..90, 100..110]);
        assert_eq!(shorter, Trained { ranges: vec![0..70, 100..110], evaluated: Some(70..90) });
    }
}
