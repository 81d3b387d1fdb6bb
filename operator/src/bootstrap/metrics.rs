//! What `watch` tells to monitoring.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Counted by `watch`.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    attempts: Family<ReasonLabel, Counter>,
    registered: Gauge,
}

/// Why an attempt failed; empty where it did not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        drop(metrics.attempts.get_or_create(&ReasonLabel { reason: "" }));
        let help = "Attempts to register the cluster with SIS, by the reason why they failed; empty: they did not";
        registry.register("registration_attempts", help, metrics.attempts.clone());
        let help = "1 where it is recorded who the cluster is";
        registry.register("registration_recorded", help, metrics.registered.clone());
        metrics
    }

    pub(super) fn attempted(&self, reason: &'static str) {
        self.attempts.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn recorded(&self, is_recorded: bool) {
        self.registered.set(i64::from(is_recorded));
    }
}
