//! The median rule: whether a training is worth its time.

use super::history::History;

/// Conditions of pruning.
#[derive(Clone, Copy, Debug)]
pub struct Pruning {
    /// Fewest other trials with a score at the iteration.
    pub trials: usize,
    /// Iterations before which nothing is pruned.
    pub iterations: u32,
}

impl Pruning {
    /// Whether trial `number` is to be stopped after its evaluation at `iteration`: its best score so far is below the median of the
    /// best scores that earlier trials had at the same iteration.
    pub fn stops(&self, history: &History, number: usize, iteration: u32) -> bool {
        if iteration < self.iterations {
            return false;
        }
        let best = |trial: usize| history.best_until(trial, iteration);
        let Some(own) = best(number) else { return false };
        let others: Vec<f64> = (1..number).filter_map(best).collect();
        others.len() >= self.trials.max(1) && own < median(others)
    }
}

/// The median of at least one number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::super::history::Event;
    use super::*;

    /// Trials with these scores at the iterations 5, 10 and so on.
    fn history(scores: &[&[f64]]) -> History {
        let mut history = History::default();
        for (index, scores) in scores.iter().enumerate() {
            let trial = index + 1;
            history
                .add(Event::Started { trial, parameters: Default::default(), process: String::new() })
                .unwrap();
            for (at, score) in scores.iter().enumerate() {
                let iteration = 5 * (at as u32 + 1);
                history.add(Event::Evaluated { trial, iteration, score: *score }).unwrap();
            }
        }
        history
    }

    #[test]
    fn a_trial_below_the_median_of_earlier_ones_is_stopped() {
        let rule = Pruning { trials: 3, iterations: 0 };
        // At iteration 10 the best scores so far are 1, 4 and 3: the median is 3, although the third trial fell to 2.
        let stops = |own: &[f64], at: u32| {
            let history = history(&[&[1.0, 0.5], &[0.0, 4.0], &[3.0, 2.0], own]);
            rule.stops(&history, 4, at)
        };
        assert!(stops(&[0.0, 2.9], 10));
        assert!(!stops(&[0.0, 3.0], 10), "the median itself is good enough");
        assert!(!stops(&[3.5, 0.0], 10), "its best score so far counts");
        assert!(stops(&[0.9], 5) && !stops(&[1.0], 5));
        assert!(!stops(&[0.0, 0.0, 0.0], 15), "no other has come that far");
    }

    #[test]
    fn nothing_is_stopped_before_enough_trials_and_iterations() {
        let history = history(&[&[1.0, 1.0], &[2.0, 2.0], &[0.0, 0.0], &[9.0, 9.0]]);
        let stops = |trials, iterations, at| Pruning { trials, iterations }.stops(&history, 3, at);
        assert!(stops(2, 0, 5));
        assert!(!stops(3, 0, 5), "only two earlier ones; the fourth is later");
        assert!(!stops(2, 6, 5) && stops(2, 6, 10));
        assert!(
            !Pruning { trials: 0, iterations: 0 }.stops(&history, 1, 5),
            "the first has nothing to be compared with"
        );
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
