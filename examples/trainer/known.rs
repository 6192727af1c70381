//! The bars that a run knows, because they trained it or chose its model, and those that it has never seen.

use std::ops::Range;

use anyhow::{Result, bail};
use jiff::civil::DateTime;
use phalanx::market::{Candles, TimestampFormat, parse_timestamp};
use phalanx::policy::MarketMetadata;

use crate::parts::Parts;
use crate::run::{DataSettings, Settings, end_of};

/// The knowledge that a run has of candles, which may be others than those of its training.
pub struct Known<'a> {
    data: &'a DataSettings,
    market: &'a MarketMetadata,
    /// Whether bars chose its model.
    evaluated: bool,
}

impl<'a> Known<'a> {
    /// By the settings of a run and the market of its model.
    pub fn new(settings: &'a Settings, market: &'a MarketMetadata) -> Self {
        Self { data: &settings.data, market, evaluated: settings.evaluation.every > 0 }
    }

    /// The periods that are held out with training before, between and after them; none where the last bars are held out.
    pub fn between(&self) -> &'a [[String; 2]] {
        &self.data.held_out
    }

    /// The reason why some of the bars from `first` to `last` are known; nothing, if all of them are held out.
    pub fn reason(&self, first: DateTime, last: DateTime) -> Result<Option<&'static str>> {
        let MarketMetadata { train_from, train_to, test_from, .. } = self.market;
        for [from, to] in self.between() {
            if parse_timestamp(from)? <= first && last < end_of(to)? {
                return Ok(None);
            }
        }
        Ok(match () {
            // Everything around the periods trains, or chooses the model.
            () if !self.between().is_empty() => Some("are not in a held-out period of the training"),
            () if first <= *train_to && last >= *train_from => Some("were trained on"),
            () if self.evaluated && first > *train_to && first < *test_from => Some("chose the model"),
            () => None,
        })
    }

    /// The held-out bars that are traded without further words: of several periods the first.
    pub fn held_out(&self, candles: &Candles) -> Result<Range<usize>> {
        let end = match self.between().first() {
            Some([_, to]) => candles.index_at_or_after(end_of(to)?),
            None => self.data.bars(candles)?.end,
        };
        let start = candles.index_at_or_after(self.market.test_from);
        Ok(start..end.max(start))
    }

    /// The bars that trained the run: of several ranges the longest.
    ///
    /// # Errors
    /// If the candles lack them.
    pub fn trained(&self, candles: &Candles) -> Result<Range<usize>> {
        if !self.between().is_empty() {
            return Ok(Parts::new(self.data, candles)?.longest_trained());
        }
        let MarketMetadata { train_from, train_to, .. } = self.market;
        let place = |timestamp| candles.timestamps.binary_search(timestamp).ok();
        if let Some((first, last)) = place(train_from).zip(place(train_to))
            && first < last
        {
            return Ok(first..last + 1);
        }
        let [from, to] =
            [train_from, train_to].map(|moment| TimestampFormat::of(&candles.timestamps).format(*moment));
        bail!(
            "the candles lack the bars of the training, {from} to {to}: give those that the model was trained on"
        )
    }

    /// The first and the last bar that training or the choice of the model saw, as far as the candles show it.
    pub fn period(&self, candles: &Candles) -> (DateTime, DateTime) {
        let MarketMetadata { train_from, train_to, test_from, .. } = self.market;
        // Of periods in between, the bars that choose the model come after the training bars or before their end.
        let before = candles.index_at_or_after(*test_from).checked_sub(1);
        let last = match before.filter(|_| self.evaluated) {
            Some(before) => candles.timestamps[before].max(*train_to),
            None => *train_to,
        };
        (*train_from, last)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use ndarray::Array2;
    use phalanx::env::TradingSettings;
    use phalanx::market::ScalingStatistics;

    use super::*;

    fn day(day: i8) -> DateTime {
        jiff::civil::date(2020, 1, day).at(0, 0, 0, 0)
    }

    fn daily(bars: usize) -> Candles {
        let days = (0..bars).map(|bar| day(1) + (bar as i64).days()).collect();
        let ones = Array2::ones((1, bars));
        let [open, high, low] = [(); 3].map(|()| ones.clone());
        Candles::new(vec!["A".into()], days, open, high, low, ones, None).unwrap()
    }

    /// A run with training bars from the 3rd to the 15th of January, and held-out ones from `test_from`.
    fn run(test_from: i8, every: u32, change: impl FnOnce(&mut DataSettings)) -> (Settings, MarketMetadata) {
        let mut settings = Settings::default();
        settings.evaluation.every = every;
        change(&mut settings.data);
        let scaling = ScalingStatistics { features: vec![], symbols: vec![], moments: vec![] };
        let market = MarketMetadata {
            settings: TradingSettings::default(),
            scaling,
            train_from: day(3),
            train_to: day(15),
            test_from: day(test_from),
            bars: None,
        };
        (settings, market)
    }

    #[test]
    fn bars_before_the_test_train_or_choose_the_model() {
        let (settings, market) = run(20, 5, |_| ());
        let known = Known::new(&settings, &market);
        let reason = |first, last| known.reason(day(first), day(last)).unwrap();
        assert_eq!(reason(20, 31), None);
        assert_eq!((reason(19, 31), reason(16, 18)), (Some("chose the model"), Some("chose the model")));
        assert_eq!((reason(15, 31), reason(1, 3)), (Some("were trained on"), Some("were trained on")));
        assert_eq!(reason(1, 2), None, "before the training");
        let candles = daily(31);
        assert_eq!(known.held_out(&candles).unwrap(), 19..31);
        assert_eq!(known.trained(&candles).unwrap(), 2..15);
        assert_eq!(known.period(&candles), (day(3), day(19)), "those that chose the model included");
        let error = known.trained(&daily(14)).unwrap_err().to_string();
        assert!(error.contains("2020-01-03 to 2020-01-15"), "{error}");
        assert_eq!(known.held_out(&daily(14)).unwrap(), 14..14);

        // A gap between training and test that chose nothing, and a test that ends.
        let (settings, market) = run(20, 0, |data| data.test_to = Some("2020-01-25".into()));
        let known = Known::new(&settings, &market);
        assert_eq!(known.reason(day(16), day(31)).unwrap(), None);
        assert_eq!(known.held_out(&candles).unwrap(), 19..25);
        assert_eq!(known.period(&candles), (day(3), day(15)));
    }

    #[test]
    fn everything_around_held_out_periods_is_known() {
        let periods = [["2020-01-05", "2020-01-07"], ["2020-01-20", "2020-01-22"]];
        let (settings, market) = run(5, 0, |data| {
            data.held_out = periods.map(|period| period.map(String::from)).to_vec();
        });
        let known = Known::new(&settings, &market);
        let reason = |first, last| known.reason(day(first), day(last)).unwrap();
        assert_eq!([reason(5, 7), reason(6, 6), reason(20, 22)], [None; 3]);
        for (first, last) in [(4, 7), (5, 8), (10, 12), (23, 31), (5, 22)] {
            assert!(reason(first, last).unwrap().contains("not in a held-out period"), "{first} to {last}");
        }
        let candles = daily(31);
        assert_eq!(known.held_out(&candles).unwrap(), 4..7, "the first period");
        assert_eq!(known.trained(&candles).unwrap(), 7..19, "the longest range");
    }
}
