//! Training progress: a progress bar on a terminal, otherwise occasional lines of text.

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::{self, Stderr};
use crate::metrics::Row;

/// Approximate number of lines of plain output.
const LINES: u64 = 20;

const TEMPLATE: &str = "{spinner} [{wide_bar:.cyan/blue}] {prefix}\n{msg}";

/// Time between two frames of the bar.
const TICK: Duration = Duration::from_millis(250);

/// Metrics of one training iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Completed iterations, including this one.
    pub iteration: u64,
    /// Environment steps since the start of the run, over all environments.
    pub env_steps: u64,
    /// Environment steps per second, averaged since training began.
    pub steps_per_second: f64,
    /// Mean episode return; NaN until an episode has ended.
    pub mean_return: f64,
    /// Mean return of about the last hundred episodes; NaN until an episode has ended.
    pub running_return: f64,
    /// Clipped surrogate loss.
    pub policy_loss: f64,
    /// Value loss.
    pub value_loss: f64,
    /// Mean entropy of the policy, in nats.
    pub entropy: f64,
    /// Approximate KL divergence between the old and the new policy.
    pub approx_kl: f64,
    /// Fraction of the variance of the returns that the critic explains.
    pub explained_variance: f64,
}

impl Line {
    /// `mean_return` is the last one known.
    pub fn of(row: &Row, mean_return: f64) -> Self {
        Self {
            iteration: u64::from(row.iteration),
            env_steps: row.env_steps,
            steps_per_second: row.steps_per_second,
            mean_return,
            running_return: row.running_return.unwrap_or(f64::NAN),
            policy_loss: f64::from(row.policy_loss),
            value_loss: f64::from(row.value_loss),
            entropy: f64::from(row.entropy),
            approx_kl: f64::from(row.approx_kl),
            explained_variance: row.explained_variance.unwrap_or(f64::NAN),
        }
    }
}

/// Shows the progress of a run on stderr.
pub struct Progress {
    total: u64,
    started: Instant,
    /// Iterations before this process, if the run was resumed.
    before: Option<u64>,
    output: Output,
}

enum Output {
    Bar(ProgressBar),
    Plain {
        out: Box<dyn Write>,
        printed: Option<u64>,
        /// The latest line, if it has not been printed.
        held_back: Option<String>,
    },
}

impl Progress {
    /// Starts the clock. `total_iterations` counts from the run's first iteration.
    pub fn new(total_iterations: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::plain(total_iterations, Box::new(Stderr));
        }
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total_iterations).with_style(style);
        bar.set_prefix(format!("0/{total_iterations}"));
        bar.enable_steady_tick(TICK);
        console::show_bar(Some(bar.clone()));
        Self::with(total_iterations, Output::Bar(bar))
    }

    fn plain(total: u64, out: Box<dyn Write>) -> Self {
        Self::with(total, Output::Plain { out, printed: None, held_back: None })
    }

    fn with(total: u64, output: Output) -> Self {
        Self { total, started: Instant::now(), before: None, output }
    }

    /// Shows that the first iteration has begun.
    pub fn begin(&self, iteration: u64) {
        if let Output::Plain { .. } = self.output {
            console::busy(working_on(iteration, self.total));
        }
    }

    /// Shows a completed iteration.
    pub fn update(&mut self, line: &Line) {
        let before = *self.before.get_or_insert(line.iteration.saturating_sub(1));
        let done = line.iteration.saturating_sub(before);
        let left = time_left(self.started.elapsed(), done, self.total.saturating_sub(line.iteration));
        match &mut self.output {
            Output::Bar(bar) => {
                bar.set_prefix(pace(line, self.total, left));
                bar.set_message(losses(line));
                bar.set_position(line.iteration);
            }
            Output::Plain { out, printed, held_back } => {
                if line.iteration < self.total {
                    console::still_busy(working_on(line.iteration + 1, self.total));
                }
                let text = format!("iteration {}  {}", pace(line, self.total, left), losses(line));
                if due(line.iteration, self.total, *printed) {
                    // A closed stderr must not stop training.
                    let _ = writeln!(out, "{text}");
                    *printed = Some(line.iteration);
                    *held_back = None;
                } else {
                    *held_back = Some(text);
                }
            }
        }
    }

    /// Ends the display and leaves the last state visible.
    pub fn finish(self) {
        match self.output {
            Output::Bar(bar) => {
                bar.abandon();
                console::show_bar(None);
            }
            Output::Plain { mut out, held_back, .. } => {
                if let Some(text) = held_back {
                    let _ = writeln!(out, "{text}");
                }
            }
        }
    }
}

fn working_on(iteration: u64, total: u64) -> String {
    format!("iteration {iteration} of {total}")
}

/// Whether plain output prints this iteration: the first, the last, and one per twentieth of the total.
pub fn due(iteration: u64, total: u64, printed: Option<u64>) -> bool {
    let Some(printed) = printed else { return true };
    iteration == total || iteration.saturating_sub(printed) >= total.div_ceil(LINES).max(1)
}

/// Estimated time for `remaining` iterations; `None` before the first.
fn time_left(elapsed: Duration, done: u64, remaining: u64) -> Option<Duration> {
    let per_iteration = elapsed.as_secs_f64() / (done > 0).then_some(done as f64)?;
    Duration::try_from_secs_f64(per_iteration * remaining as f64).ok()
}

pub fn pace(line: &Line, total: u64, left: Option<Duration>) -> String {
    let width = total.to_string().len();
    let left = left.map_or(String::new(), |left| format!("  {} left", duration(left)));
    let (steps, rate) = (count(line.env_steps as f64), count(line.steps_per_second));
    format!("{:>width$}/{total}  {steps} steps  {rate} steps/s{left}", line.iteration)
}

pub fn losses(line: &Line) -> String {
    format!(
        "return {} (running {})  policy {}  value {}  entropy {}  KL {}  explained {}",
        known(line.mean_return),
        known(line.running_return),
        number(line.policy_loss),
        number(line.value_loss),
        number(line.entropy),
        number(line.approx_kl),
        known(line.explained_variance)
    )
}

/// A number, or a dash for NaN: nothing is known yet.
fn known(value: f64) -> String {
    if value.is_nan() { "-".into() } else { number(value) }
}

/// A loss in nearly constant width, for readability: `-0.0123`, `4.20e-5`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(1e-3..1e4).contains(&size) {
        format!("{value:.2e}")
    } else {
        format!("{value:.4}")
    }
}

/// Three or four digits with a unit: `987`, `12.3k`, `4.56M`.
pub fn count(value: f64) -> String {
    for (unit, size) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        // 999.6 rounds up to 1.00k.
        if value >= size * 0.9995 {
            let scaled = value / size;
            let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
            return format!("{scaled:.digits$}{unit}");
        }
    }
    format!("{value:.0}")
}

/// The two largest units: `12s`, `3m 10s`, `2h 05m`, `3d 04h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn line(iteration: u64) -> Line {
        Line {
            iteration,
            env_steps: iteration * 4096,
            steps_per_second: 12_345.6,
            mean_return: 0.0123,
            running_return: f64::NAN,
            policy_loss: -0.00456,
            value_loss: 12.5,
            entropy: 1.0986,
            approx_kl: 0.00042,
            explained_variance: 0.75,
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The iterations that plain output prints when those of `range`, out of `total`, complete.
    fn shown(range: std::ops::RangeInclusive<u64>, total: u64) -> Vec<u64> {
        let shared = Shared::default();
        let mut progress = Progress::plain(total, Box::new(shared.clone()));
        range.for_each(|n| progress.update(&line(n)));
        progress.finish();
        let text = String::from_utf8(shared.0.take()).unwrap();
        let numbers =
            text.lines().map(|line| line.trim_start_matches("iteration").split_once('/').unwrap().0);
        numbers.map(|number| number.trim().parse().unwrap()).collect()
    }

    #[test]
    fn plain_output_is_sparse_and_includes_first_and_last() {
        assert_eq!(shown(1..=3, 3), [1, 2, 3]);
        assert_eq!(shown(1..=100, 100).len(), 21);
        assert_eq!(shown(1..=1000, 1000)[..3], [1, 51, 101]);
        assert_eq!(shown(1..=1000, 1000).last(), Some(&1000));
        assert_eq!(shown(501..=600, 1000), [501, 551, 600], "resumed, and stopped early");
        assert_eq!(shown(1..=2, 0), [1, 2], "a total of 0 divides nothing");
        // The last iteration is printed immediately, not only in `finish`.
        assert!(due(100, 100, Some(98)) && !due(99, 100, Some(98)));
    }

    #[test]
    fn a_line_names_every_number() {
        let left = time_left(Duration::from_secs(10), 12, 188);
        assert_eq!(pace(&line(12), 200, left), " 12/200  49.2k steps  12.3k steps/s  2m 37s left");
        assert_eq!(
            losses(&line(12)),
            "return 0.0123 (running -)  policy -0.0046  value 12.5000  entropy 1.0986  KL 4.20e-4  explained 0.7500"
        );
    }

    #[test]
    fn time_left_follows_the_pace() {
        assert_eq!(time_left(Duration::from_secs(9), 3, 5), Some(Duration::from_secs(15)));
        assert_eq!(time_left(Duration::from_secs(9), 3, 0), Some(Duration::ZERO));
        assert_eq!(time_left(Duration::from_secs(9), 0, 5), None);
        assert_eq!(time_left(Duration::MAX, 1, u64::MAX), None);
    }

    #[test]
    fn numbers_stay_short() {
        for (value, want) in [(0.0, "0.0000"), (-1.5, "-1.5000"), (2e-5, "2.00e-5"), (-123456.0, "-1.23e5")] {
            assert_eq!(number(value), want);
        }
        assert_eq!((number(f64::NAN), number(f64::NEG_INFINITY)), ("NaN".into(), "-inf".into()));
    }

    #[test]
    fn counts_have_units() {
        let cases = [(0.0, "0"), (999.4, "999"), (999.6, "1.00k"), (12_345.6, "12.3k"), (99_960.0, "100k")];
        for (value, want) in
            cases.into_iter().chain([(4.56e6, "4.56M"), (9.996e6, "10.0M"), (7.0e11, "700G")])
        {
            assert_eq!(count(value), want);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, want) in
            [(0.4, "0s"), (59.6, "1m 00s"), (190.0, "3m 10s"), (7500.0, "2h 05m"), (273_600.0, "3d 04h")]
        {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), want);
        }
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
