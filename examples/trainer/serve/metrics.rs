//! Metrics in the text format of Prometheus (OpenMetrics).

use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use phalanx::gpu::Gpu;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;

use crate::live::desk::{Decided, Reply};
use crate::memory::Memory;

/// Upper ends of the latency's buckets in seconds.
const BUCKETS: [f64; 15] =
    [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

type Number = Gauge<f64, AtomicU64>;
type BySymbol = Family<[(&'static str, String); 1], Number>;

/// All metrics. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    decisions: Counter,
    violations: Counter,
    refused: Counter,
    latency: Histogram,
    equity: Number,
    units: BySymbol,
    targets: BySymbol,
    resident: Number,
    device: Number,
    gpu: Option<Gpu>,
}

impl Metrics {
    pub fn new(symbols: &[String], gpu: Option<Gpu>) -> Self {
        let mut registry = Registry::with_prefix("phalanx");
        let own = Self {
            registry: Arc::default(),
            decisions: Counter::default(),
            violations: Counter::default(),
            refused: Counter::default(),
            latency: Histogram::new(BUCKETS),
            equity: Number::default(),
            units: BySymbol::default(),
            targets: BySymbol::default(),
            resident: Number::default(),
            device: Number::default(),
            gpu,
        };
        registry.register("decisions", "Decisions", own.decisions.clone());
        registry.register(
            "latency_violations",
            "Decisions that took longer than the limit",
            own.violations.clone(),
        );
        registry.register("refused_messages", "Messages that could not be used", own.refused.clone());
        registry.register_with_unit(
            "decision_latency",
            "Time from the last part of a bar to the decision",
            Unit::Seconds,
            own.latency.clone(),
        );
        registry.register("equity", "Account value at the last close", own.equity.clone());
        registry.register("position_units", "Units held", own.units.clone());
        registry.register("target_level", "Target level of the last decision", own.targets.clone());
        registry.register_with_unit(
            "resident_memory",
            "Memory of the process",
            Unit::Bytes,
            own.resident.clone(),
        );
        registry.register_with_unit(
            "device_memory",
            "Memory allocated on the device",
            Unit::Bytes,
            own.device.clone(),
        );
        for symbol in symbols {
            for family in [&own.units, &own.targets] {
                family.get_or_create(&[("symbol", symbol.clone())]).set(0.0);
            }
        }
        Self { registry: Arc::new(registry), ..own }
    }

    /// Counts an answer. `violations` are those so far.
    pub fn record(&self, reply: &Reply, violations: u64) {
        let Some(decided) = &reply.decided else { return };
        self.decisions.inc();
        self.violations.inc_by(violations.saturating_sub(self.violations.get()));
        self.latency.observe(reply.latency_us / 1e6);
        self.set(decided);
    }

    /// Sets the account.
    pub fn set(&self, decided: &Decided) {
        self.equity.set(decided.equity);
        for (family, values) in [(&self.units, &decided.units), (&self.targets, &decided.targets)] {
            for (symbol, value) in values {
                family.get_or_create(&[("symbol", symbol.clone())]).set(*value);
            }
        }
    }

    pub fn refused(&self) {
        self.refused.inc();
    }

    pub fn text(&self) -> Result<String> {
        if let Some(Memory { gpu, host }) = self.gpu.as_ref().map(Memory::now) {
            self.resident.set(host.unwrap_or_default() as f64);
            self.device.set(gpu.unwrap_or_default() as f64);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).context("encoding the metrics")?;
        Ok(text)
    }
}
