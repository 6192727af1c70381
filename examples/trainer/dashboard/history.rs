//! The iterations that are shown.

use std::time::Duration;

use crate::metrics::Row;

/// Most rows that are kept: more than any screen has columns.
const MOST: usize = 1 << 16;

/// Rows that the pace is measured over.
const PACE: usize = 50;

/// Iterations in order; of a very long run, every second, fourth and so on.
#[derive(Debug, Default)]
pub struct History {
    pub rows: Vec<Row>,
    /// Iterations of the whole run.
    pub total: u32,
}

impl History {
    pub fn new(total: u32) -> Self {
        Self { rows: Vec::new(), total }
    }

    /// Adds an iteration, which replaces itself and later ones: a resumed run repeats those after its checkpoint.
    pub fn push(&mut self, row: Row) {
        while self.rows.last().is_some_and(|last| last.iteration >= row.iteration) {
            self.rows.pop();
        }
        self.rows.push(row);
        if self.rows.len() >= MOST {
            self.thin_out();
        }
    }

    /// Keeps the second of every two rows, with what only the first one knows.
    fn thin_out(&mut self) {
        let last = self.rows.pop();
        let merged = self.rows.chunks(2).map(|pair| match pair {
            [first, second] => merged(first, second),
            single => single[0],
        });
        self.rows = merged.chain(last).collect();
    }

    pub fn last(&self) -> Option<&Row> {
        self.rows.last()
    }

    /// Estimated time to the last iteration, at the pace of the latest ones.
    pub fn time_left(&self) -> Option<Duration> {
        let last = self.last()?;
        let since = self.rows.len().checked_sub(PACE + 1).map(|at| &self.rows[at]);
        let (iteration, seconds) = since.map_or((0, 0.0), |row| (row.iteration, row.seconds));
        let per_iteration =
            (last.seconds - seconds) / f64::from(last.iteration.saturating_sub(iteration).max(1));
        let left = per_iteration * f64::from(self.total.saturating_sub(last.iteration));
        Duration::try_from_secs_f64(left).ok()
    }

    /// Environment steps per second between the row at `at` and the one before it.
    pub fn speed(rows: &[Row], at: usize) -> Option<f64> {
        let row = rows.get(at)?;
        let (steps, seconds) = match at.checked_sub(1).and_then(|before| rows.get(before)) {
            Some(before) => (row.env_steps.saturating_sub(before.env_steps), row.seconds - before.seconds),
            None => (row.env_steps, row.seconds),
        };
        (seconds > 0.0).then(|| steps as f64 / seconds)
    }
}

fn merged(first: &Row, second: &Row) -> Row {
    Row {
        mean_return: second.mean_return.or(first.mean_return),
        mean_length: second.mean_length.or(first.mean_length),
        evaluation: second.evaluation.or(first.evaluation),
        evaluation_sampled: second.evaluation_sampled.or(first.evaluation_sampled),
        rollout_seconds: second.rollout_seconds.or(first.rollout_seconds),
        values_seconds: second.values_seconds.or(first.values_seconds),
        update_seconds: second.update_seconds.or(first.update_seconds),
        ..*second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(iteration: u32) -> Row {
        Row {
            iteration,
            env_steps: u64::from(iteration) * 10,
            seconds: f64::from(iteration) * 2.0,
            ..Row::default()
        }
    }

    fn iterations(history: &History) -> Vec<u32> {
        history.rows.iter().map(|row| row.iteration).collect()
    }

    #[test]
    fn repeated_iterations_replace_those_after_the_checkpoint() {
        let mut history = History::new(9);
        (1..=5).chain(3..=4).for_each(|iteration| history.push(row(iteration)));
        assert_eq!(iterations(&history), [1, 2, 3, 4]);
        history.push(Row { evaluation: Some(1.5), ..row(4) });
        assert_eq!((iterations(&history).len(), history.last().unwrap().evaluation), (4, Some(1.5)));
    }

    #[test]
    fn long_runs_are_thinned_out_and_lose_no_evaluation_and_not_the_last() {
        let mut history = History::new(u32::MAX);
        for iteration in 1..=200_000u32 {
            // The first of two.
            let evaluation = iteration.is_multiple_of(10_001).then_some(f64::from(iteration));
            history.push(Row { evaluation, ..row(iteration) });
            assert!(history.rows.len() < MOST && history.last().unwrap().iteration == iteration);
        }
        assert!(history.rows.len() > MOST / 4 && iterations(&history).is_sorted());
        let evaluations: Vec<_> = history.rows.iter().filter_map(|row| row.evaluation).collect();
        assert_eq!(evaluations, (1..=19).map(|n| f64::from(n * 10_001)).collect::<Vec<_>>());
        assert_eq!(History::speed(&history.rows, 5), Some(5.0));
    }

    #[test]
    fn time_left_follows_the_latest_pace() {
        let mut history = History::new(200);
        assert_eq!(history.time_left(), None);
        (1..=10).for_each(|iteration| history.push(row(iteration)));
        assert_eq!(history.time_left(), Some(Duration::from_secs(380)));
        // From here on ten times as slow.
        for iteration in 11..=100 {
            let seconds = 20.0 + f64::from(iteration - 10) * 20.0;
            history.push(Row { seconds, ..row(iteration) });
        }
        assert_eq!(history.time_left(), Some(Duration::from_secs(2000)));
        history.push(Row { seconds: f64::NAN, ..row(101) });
        assert_eq!(history.time_left(), None);
    }
}
