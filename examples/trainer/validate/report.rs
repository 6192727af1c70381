//! The result of `validate`, as text and as JSON.

use std::time::Duration;

use serde::Serialize;

use super::{Checked, EPISODES, STEPS, thresholds};
use crate::console::say;
use crate::run::ValidateSettings;

#[derive(Serialize)]
pub struct Report {
    pub passed: bool,
    checks: Vec<Check>,
    episodes: Vec<Episode>,
    /// Target levels, and how often each was decided.
    targets: Vec<(f64, usize)>,
    latency_ms: Latency,
    f16_largest_difference_of_a_probability: f32,
    /// Peak of the process, and bytes on the device.
    memory_bytes: Option<u64>,
    device_memory_bytes: Option<u64>,
    seconds: f64,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    value: f64,
    limit: f64,
    passed: bool,
}

#[derive(Serialize)]
struct Episode {
    from: String,
    #[serde(rename = "return")]
    gain: f64,
    max_drawdown: f64,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
    limit: f64,
    decisions: u64,
    violations: u64,
}

impl Report {
    pub fn new(
        checked: &Checked,
        settings: &ValidateSettings,
        elapsed: Duration,
        process: Option<u64>,
        device: Option<u64>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let checks = thresholds(settings, checked, seconds).map(|(name, value, limit, passed)| Check {
            name,
            value,
            limit,
            passed,
        });
        let episodes = checked.stretches.iter().zip(&checked.returns).zip(&checked.drawdowns);
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let latency = &checked.latency;
        Self {
            passed: checks.iter().all(|check| check.passed),
            checks: checks.into(),
            episodes: episodes
                .map(|((from, gain), drawdown)| Episode {
                    from: from.clone(),
                    gain: *gain,
                    max_drawdown: *drawdown,
                })
                .collect(),
            targets: checked.targets.clone(),
            latency_ms: Latency {
                p50: ms(latency.quantile(0.5)),
                p99: ms(latency.quantile(0.99)),
                max: ms(latency.max()),
                limit: ms(latency.limit()),
                decisions: latency.decisions(),
                violations: latency.violations,
            },
            f16_largest_difference_of_a_probability: checked.f16_difference,
            memory_bytes: process,
            device_memory_bytes: device,
            seconds,
        }
    }

    pub fn print(&self) {
        say!("{EPISODES} episodes of {STEPS} steps, on stretches of 100 bars:");
        for Episode { from, gain, max_drawdown } in &self.episodes {
            let from = from.strip_suffix("T00:00:00").unwrap_or(from);
            say!(
                "  from {from:<20}return {:>8.2} %   drawdown {:>6.2} %",
                100.0 * gain,
                100.0 * max_drawdown
            );
        }
        let count: usize = self.targets.iter().map(|(_, count)| count).sum();
        let targets = match self.targets.len() {
            0..=8 => self
                .targets
                .iter()
                .map(|(level, times)| format!("{level} {:.0} %", 100.0 * *times as f64 / count as f64))
                .collect::<Vec<_>>()
                .join(", "),
            many => format!("{many} different ones"),
        };
        say!("Targets    {targets}");
        let Latency { p50, p99, max, limit, decisions, violations } = self.latency_ms;
        say!(
            "Latency    p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms; {violations} of {decisions} above {limit} ms"
        );
        let kib = |bytes: Option<u64>| bytes.map_or("unknown".into(), |bytes| format!("{} KiB", bytes >> 10));
        say!(
            "Memory     {} of the process at most, {} on the device",
            kib(self.memory_bytes),
            kib(self.device_memory_bytes)
        );
        say!(
            "f16        probabilities differ by {:.1e} at most",
            self.f16_largest_difference_of_a_probability
        );
        for Check { name, value, limit, passed } in &self.checks {
            let verdict = if *passed { "pass" } else { "FAIL" };
            say!("{verdict}  {name:<22}{value:>10.4}   limit {limit}");
        }
        say!("{}", if self.passed { "The model passed." } else { "The model did not pass." });
    }
}
