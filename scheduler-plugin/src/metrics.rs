//! What berth-scheduler counts.

use std::{fmt, sync::Arc, time::Duration};

use berth_runtime::metrics::latency_histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use crate::cluster::Cluster;

/// Handles; clones share one state.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<Request, Histogram, fn() -> Histogram>,
    node_refusals: Family<Reason, Counter>,
    bind_refusals: Family<Reason, Counter>,
    decisions: Family<Outcome, Counter>,
    calls: Family<Call, Counter>,
    groups_put_right: Family<PutRight, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PutRight {
    was: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    policy: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Contact {
    contact: &'static str,
}

/// Counts nodes when it is scraped.
#[derive(Debug)]
struct Nodes(Arc<Cluster>);

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, cluster: Arc<Cluster>) -> Self {
        let metrics = Self {
            requests: Family::new_with_constructor(latency_histogram),
            node_refusals: Family::default(),
            bind_refusals: Family::default(),
            decisions: Family::default(),
            calls: Family::default(),
            groups_put_right: Family::default(),
        };
        let extender = registry.sub_registry_with_prefix("extender");
        let help = "Requests of kube-scheduler, from the first byte of the body to the answer";
        extender.register("request_duration_seconds", help, metrics.requests.clone());
        let help = "Nodes that a filter request was told not to use, by reason";
        extender.register("node_refusals", help, metrics.node_refusals.clone());
        let help = "Bind requests that were refused, by reason";
        extender.register("bind_refusals", help, metrics.bind_refusals.clone());
        let help = "Decisions: proposed (a node fits), nofit, reserved, refused (by the chosen node)";
        registry.register("decisions", help, metrics.decisions.clone());
        let help = "Calls over gRPC, by method and the reason why they were refused (empty: they were not)";
        registry.register("grpc_calls", help, metrics.calls.clone());
        let help =
            "PodGroups of pods that Berth bound for KAI that somebody deleted or changed, and that were put right";
        registry.register("kai_groups_put_right", help, metrics.groups_put_right.clone());
        registry.register_collector(Box::new(Nodes(cluster)));
        // At zero from the start, so that a rate over them is known from the first one on.
        for method in ["Place", "Explain", "Simulate", "GetCluster", "WatchDecisions"] {
            let reason = String::new();
            metrics.calls.get_or_create(&Call { method, reason }).inc_by(0);
        }
        for was in ["deleted", "changed"] {
            metrics.groups_put_right.get_or_create(&PutRight { was }).inc_by(0);
        }
        let reason = "BindTimeout".to_owned();
        metrics.bind_refusals.get_or_create(&Reason { reason }).inc_by(0);
        metrics
    }

    pub(crate) fn request(&self, verb: &'static str, outcome: &'static str, took: Duration) {
        let labels = Request { verb, outcome };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn node_refused(&self, reason: &str, nodes: usize) {
        let labels = Reason {
            reason: reason.to_owned(),
        };
        self.node_refusals.get_or_create(&labels).inc_by(nodes as u64);
    }

    pub(crate) fn bind_refused(&self, reason: &str) {
        let labels = Reason {
            reason: reason.to_owned(),
        };
        self.bind_refusals.get_or_create(&labels).inc();
    }

    pub(crate) fn called(&self, method: &'static str, reason: &str) {
        let reason = reason.to_owned();
        self.calls.get_or_create(&Call { method, reason }).inc();
    }

    pub(crate) fn group_put_right(&self, was: &'static str) {
        self.groups_put_right.get_or_create(&PutRight { was }).inc();
    }

    pub(crate) fn decided(&self, policy: &'static str, outcome: &'static str) {
        self.decisions.get_or_create(&Outcome { policy, outcome }).inc();
    }
}

impl Collector for Nodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Daemons by contact: up, down, or never seen";
        let mut family = encoder.encode_descriptor("nodes", help, None, MetricType::Gauge)?;
        for (contact, count) in self.0.contacts() {
            let labels = Contact { contact };
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
