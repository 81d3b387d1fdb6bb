//! Levels: read from the published view at the moment of the scrape, so that they cost nothing in between.

use std::{collections::BTreeMap, fmt};

use berth_ledger::{ClaimState, DriftReason};
use berth_placement::Health;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::book::{NodeView, Views, obtainable};

#[derive(Debug)]
pub(super) struct Levels(pub(super) Views);

/// Values of one gauge by one label.
type ByLabel = BTreeMap<&'static str, u64>;

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let view = self.0.current();
        let (free_milli, free_memory, memory) = room(&view);
        gauge(&mut encoder, "devices", "GPUs by health", "health", &devices(&view))?;
        plain(
            &mut encoder,
            "free_milli",
            "Thousandths of GPUs that a new request could get",
            free_milli,
        )?;
        plain(
            &mut encoder,
            "free_memory_bytes",
            "Memory of GPUs that a new request could get",
            free_memory,
        )?;
        plain(&mut encoder, "memory_bytes", "Memory of all GPUs", memory)?;
        gauge(
            &mut encoder,
            "allocations",
            "Holders of GPUs by state",
            "state",
            &allocations(&view),
        )?;
        gauge(
            &mut encoder,
            "drifts",
            "Disagreements between driver, kubelet and book",
            "reason",
            &drifts(&view),
        )?;
        let conditions = view
            .conditions
            .iter()
            .map(|condition| (condition.kind.as_str(), condition.status.into()));
        gauge(
            &mut encoder,
            "condition",
            "1 where the condition holds",
            "type",
            &conditions.collect(),
        )?;
        plain(
            &mut encoder,
            "node_generation",
            "Generation of the node's state",
            view.generation(),
        )
    }
}

fn plain(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &ByLabel,
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        ConstGauge::new(*count).encode(metric.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

/// What could be had now: nothing of a device that must be avoided.
fn room(view: &NodeView) -> (u64, u64, u64) {
    view.book
        .node
        .devices
        .iter()
        .fold((0, 0, 0), |(milli, free, memory), device| {
            let room = obtainable(device);
            (
                milli + u64::from(room.milli.get()),
                free + room.memory.get(),
                memory + device.memory.get(),
            )
        })
}

/// Every value of a label is always there: a level of zero is a fact.
fn zeros(labels: impl IntoIterator<Item = &'static str>) -> ByLabel {
    labels.into_iter().map(|label| (label, 0)).collect()
}

fn devices(view: &NodeView) -> ByLabel {
    let states = [Health::Healthy, Health::Suspect, Health::Recovering, Health::Unhealthy];
    let mut counts = zeros(states.map(Health::as_str));
    for device in &view.inventory.devices {
        *counts.entry(device.health.state.as_str()).or_default() += 1;
    }
    counts
}

fn allocations(view: &NodeView) -> ByLabel {
    let mut counts = zeros(["Reserved", "Allocated", "Leased", "Foreign"]);
    for claim in view.book.claims.iter() {
        let state = match claim.state {
            ClaimState::Reserved { .. } => "Reserved",
            ClaimState::Allocated { .. } => "Allocated",
            ClaimState::Leased => "Leased",
            ClaimState::Foreign { .. } => "Foreign",
        };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

fn drifts(view: &NodeView) -> ByLabel {
    let reasons = [
        DriftReason::AllocationWithoutKubelet,
        DriftReason::ProcessWithoutAllocation,
        DriftReason::DeviceMissing,
        DriftReason::OverCommitted,
        DriftReason::AssignedUnusable,
    ];
    let mut counts = zeros(reasons.map(DriftReason::as_str));
    for drift in view.book.drifts.iter() {
        *counts.entry(drift.reason.as_str()).or_default() += 1;
    }
    counts
}
