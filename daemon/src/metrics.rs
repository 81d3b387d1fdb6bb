//! What berthd counts and measures. Levels are read from the published view when somebody scrapes; what happens in
//! between (requests, journal, XIDs) is counted where it happens. No label holds a pod, a lease or a client.

mod levels;

use std::{fmt, time::Duration};

use berth_gpu::Inventory;
use berth_ledger::removal;
use berth_runtime::{SharedClock, metrics::latency_histogram};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tonic::Code;

use crate::{book::Views, podresources::POLL_OUTCOMES};

/// How a holder may lose its claim without having asked.
const UNASKED_REMOVALS: [&str; 5] = [
    removal::LAPSED,
    removal::POD_GONE,
    removal::REPLACED,
    removal::DISPLACED_BY_KUBELET,
    removal::DEVICE_LOST,
];

/// The methods of `berth.node.v1.NodeService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    GetNode,
    WatchNode,
    ListAllocations,
    Reserve,
    Release,
    ExplainFit,
    SetDeviceSchedulable,
    AcknowledgeHealth,
    AcquireLease,
}

/// What is counted while berthd runs. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    clock: SharedClock,
    methods: Vec<MethodMetrics>,
    requests: Family<RequestLabels, Counter>,
    pub(crate) journal_write: Histogram,
    pub(crate) journal_sync: Histogram,
    pub(crate) journal_failures: Counter,
    pub(crate) journal_rewrites: Counter,
    revocations: Family<ReasonLabel, Counter>,
    xids: Family<XidLabels, Counter>,
    kubelet_polls: Family<ReasonLabel, Counter>,
    mirror_writes: Family<ReasonLabel, Counter>,
}

/// Resolved once, so that a call costs no look-up.
#[derive(Debug, Clone, Default)]
struct MethodMetrics {
    ok: Counter,
    cancelled: Counter,
    latency: Option<Histogram>,
}

/// How a call ended: `code` as gRPC names it; `reason` is the stable one, empty where all went well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct XidLabels {
    xid: u32,
}

/// Measures one call, and counts it as cancelled where nobody said how it ended.
#[must_use]
pub(crate) struct Call<'a> {
    metrics: &'a Metrics,
    method: Method,
    start: Duration,
    ended: bool,
}

impl Method {
    const ALL: [Self; 9] = [
        Self::GetNode,
        Self::WatchNode,
        Self::ListAllocations,
        Self::Reserve,
        Self::Release,
        Self::ExplainFit,
        Self::SetDeviceSchedulable,
        Self::AcknowledgeHealth,
        Self::AcquireLease,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::GetNode => "GetNode",
            Self::WatchNode => "WatchNode",
            Self::ListAllocations => "ListAllocations",
            Self::Reserve => "Reserve",
            Self::Release => "Release",
            Self::ExplainFit => "ExplainFit",
            Self::SetDeviceSchedulable => "SetDeviceSchedulable",
            Self::AcknowledgeHealth => "AcknowledgeHealth",
            Self::AcquireLease => "AcquireLease",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, clock: SharedClock) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let latency = Family::<MethodLabel, Histogram>::new_with_constructor(latency_histogram);
        let methods = Method::ALL.map(|method| {
            let ended = |code| {
                let labels = RequestLabels {
                    method: method.as_str(),
                    code,
                    reason: "",
                };
                requests.get_or_create(&labels).clone()
            };
            let latency = latency
                .get_or_create(&MethodLabel {
                    method: method.as_str(),
                })
                .clone();
            MethodMetrics {
                ok: ended("OK"),
                cancelled: ended("CANCELLED"),
                latency: Some(latency),
            }
        });
        let metrics = Self {
            clock,
            methods: methods.into(),
            requests: requests.clone(),
            journal_write: latency_histogram(),
            journal_sync: latency_histogram(),
            journal_failures: Counter::default(),
            journal_rewrites: Counter::default(),
            revocations: Family::default(),
            xids: Family::default(),
            kubelet_polls: Family::default(),
            mirror_writes: Family::default(),
        };
        registry.register("requests", "gRPC calls by how they ended", requests);
        let help = "Time from a gRPC call's start to its answer, or to a stream's first message";
        registry.register_with_unit("request_duration", help, Unit::Seconds, latency);
        let journal = registry.sub_registry_with_prefix("journal");
        let help = "Time to hand a batch of grants to the kernel (with --journal-sync always: to the disk)";
        journal.register_with_unit("write", help, Unit::Seconds, metrics.journal_write.clone());
        let help = "Time of one group commit to the disk";
        journal.register_with_unit("sync", help, Unit::Seconds, metrics.journal_sync.clone());
        journal.register(
            "failures",
            "Writes and syncs of the journal that failed",
            metrics.journal_failures.clone(),
        );
        journal.register(
            "rewrites",
            "Times the journal was written anew",
            metrics.journal_rewrites.clone(),
        );
        // What has not happened yet is zero, not absent.
        for reason in UNASKED_REMOVALS {
            drop(metrics.revocations.get_or_create(&ReasonLabel { reason }));
        }
        for reason in POLL_OUTCOMES {
            drop(metrics.kubelet_polls.get_or_create(&ReasonLabel { reason }));
        }
        let help = "Holders that lost what they held without having asked";
        registry.register("revocations", help, metrics.revocations.clone());
        registry.register(
            "xids",
            "XID errors that told on a device's health",
            metrics.xids.clone(),
        );
        let help = "Times the kubelet was asked what it assigned, by outcome";
        registry.register("kubelet_polls", help, metrics.kubelet_polls.clone());
        drop(metrics.mirror_writes.get_or_create(&ReasonLabel { reason: "" }));
        let help = "Times the GpuNode was brought up to date, by the reason why not; empty: it is up to date";
        registry.register("mirror_syncs", help, metrics.mirror_writes.clone());
        metrics
    }

    pub(crate) fn call(&self, method: Method) -> Call<'_> {
        Call {
            metrics: self,
            method,
            start: self.clock.monotonic(),
            ended: false,
        }
    }

    pub(crate) fn polled(&self, reason: &'static str) {
        self.kubelet_polls.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// `reason`: empty where the API server has everything.
    pub(crate) fn mirrored(&self, reason: &'static str) {
        self.mirror_writes.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn revoked(&self, reason: &'static str) {
        self.revocations.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Adds what is read from the views when somebody scrapes.
    pub(crate) fn register_levels(registry: &mut Registry, views: Views) {
        registry.register_collector(Box::new(levels::Levels(views)));
    }

    /// Counts the XIDs that are in `now` and were not in `before`.
    pub(crate) fn count_xids(&self, before: &Inventory, now: &Inventory) {
        for device in &now.devices {
            let known = before
                .device(&device.facts.uuid)
                .map(|device| device.health.reasons.as_slice());
            let known = known.unwrap_or_default();
            for reason in &device.health.reasons {
                if let Some(xid) = reason.xid
                    && !known
                        .iter()
                        .any(|old| old.xid == Some(xid) && old.since_unix_ms == reason.since_unix_ms)
                {
                    self.xids.get_or_create(&XidLabels { xid }).inc();
                }
            }
        }
    }
}

// === impl Call ===

impl Call<'_> {
    pub(crate) fn ok(mut self) {
        self.ended = true;
        if let Some(method) = self.metrics.methods.get(self.method as usize) {
            method.ok.inc();
        }
    }

    pub(crate) fn refused(mut self, code: Code, reason: &'static str) {
        self.ended = true;
        let labels = RequestLabels {
            method: self.method.as_str(),
            code: code_name(code),
            reason,
        };
        self.metrics.requests.get_or_create(&labels).inc();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Some(method) = self.metrics.methods.get(self.method as usize) else {
            return;
        };
        if !self.ended {
            method.cancelled.inc();
        }
        if let Some(latency) = &method.latency {
            latency.observe(self.metrics.clock.monotonic().saturating_sub(self.start).as_secs_f64());
        }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// As the specification of gRPC spells it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
