//! The time that decisions take.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

/// Latencies of decisions.
pub struct Latency {
    /// Nanoseconds.
    histogram: Histogram<u64>,
    limit: Duration,
    pub violations: u64,
}

impl Latency {
    pub fn new(limit: Duration) -> Result<Self> {
        // Up to an hour, with three digits.
        Ok(Self { histogram: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?, limit, violations: 0 })
    }

    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.histogram.saturating_record(nanoseconds);
        self.violations += u64::from(latency > self.limit);
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }

    pub fn decisions(&self) -> u64 {
        self.histogram.len()
    }

    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.mean() as u64)
    }

    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile))
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram.max())
    }

    pub fn summary(&self) -> String {
        let ms = |duration: Duration| format!("{:.3} ms", duration.as_secs_f64() * 1e3);
        if self.decisions() == 0 {
            return "Decisions none".into();
        }
        format!(
            "Decisions {}, latency p50 {}, p99 {}, max {}; {} above {}",
            self.decisions(),
            ms(self.quantile(0.5)),
            ms(self.quantile(0.99)),
            ms(self.max()),
            self.violations,
            ms(self.limit)
        )
    }
}
