//! What nvca-operator counts. The names are our own: those of the real operator count its ticks, and here are none.

use std::time::Duration;

use berth_runtime::{kubernetes::ApiError, metrics::latency_histogram};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::object::KINDS;

/// Handles; clones share one state.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    rounds: Histogram,
    failures: Family<Reason, Counter>,
    applied: Family<Kind, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("operator");
        let metrics = Self {
            rounds: latency_histogram(),
            failures: Family::default(),
            applied: Family::default(),
        };
        registry.register(
            "reconcile_seconds",
            "Time of one look at everything",
            metrics.rounds.clone(),
        );
        registry.register(
            "reconcile_failures",
            "What the API server did not take, by its reason",
            metrics.failures.clone(),
        );
        registry.register(
            "applied_objects",
            "Objects that were made or put right, by kind",
            metrics.applied.clone(),
        );
        // There before the first one: whoever counts sees that one, too.
        for kind in KINDS {
            drop(metrics.applied.get_or_create(&Kind { kind: kind.name }));
        }
        let reason = "ApiUnavailable";
        drop(metrics.failures.get_or_create(&Reason { reason }));
        metrics
    }

    pub(super) fn round(&self, took: Duration, failure: Option<&ApiError>) {
        self.rounds.observe(took.as_secs_f64());
        if let Some(error) = failure {
            self.failed(error);
        }
    }

    pub(super) fn failed(&self, error: &ApiError) {
        let reason = error.reason();
        self.failures.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn applied(&self, kind: &'static str) {
        self.applied.get_or_create(&Kind { kind }).inc();
    }
}
