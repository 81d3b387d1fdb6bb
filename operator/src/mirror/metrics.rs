//! What nvca-mirror counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::plan::{Action, Finding, Plan};

/// Handles; clones share one state.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    writes: Family<Write, Counter>,
    copies: Gauge,
    findings: Family<What, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    action: &'static str,
    /// Empty: done.
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

const ACTIONS: [&str; 4] = ["create", "update", "replace", "delete"];
const FINDINGS: [&str; 4] = ["no_source", "unfit_source", "no_namespace", "foreign_secret"];

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
            copies: Gauge::default(),
            findings: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mirror");
        registry.register(
            "writes",
            "Changes of copies, by what came of it",
            metrics.writes.clone(),
        );
        registry.register("copies", "Copies that are as their sources", metrics.copies.clone());
        registry.register(
            "findings",
            "What the mirror waits for or leaves alone",
            metrics.findings.clone(),
        );
        for action in ACTIONS {
            drop(metrics.writes.get_or_create(&Write { action, reason: "" }));
        }
        metrics.planned(&Plan::default());
        metrics
    }

    pub(super) fn planned(&self, plan: &Plan) {
        self.copies.set(i64::try_from(plan.settled).unwrap_or(i64::MAX));
        for what in FINDINGS {
            let count = plan.findings.iter().filter(|finding| name(finding) == what).count();
            let gauge = self.findings.get_or_create(&What { what });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn wrote(&self, action: &Action, reason: &'static str) {
        let action = match action {
            Action::Create { .. } => "create",
            Action::Update { .. } => "update",
            Action::Replace { .. } => "replace",
            Action::Delete { .. } => "delete",
        };
        self.writes.get_or_create(&Write { action, reason }).inc();
    }
}

fn name(finding: &Finding) -> &'static str {
    match finding {
        Finding::NoSource { .. } => "no_source",
        Finding::Unfit { .. } => "unfit_source",
        Finding::NoNamespace { .. } => "no_namespace",
        Finding::Foreign { .. } => "foreign_secret",
    }
}
