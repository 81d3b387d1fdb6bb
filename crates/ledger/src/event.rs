//! What goes into the ledger and what comes out: the whole interface.

use berth_placement::{DeviceState, DeviceUuid, LeaseId, PodRef, PodUid, Refusal, Shape};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Claim, Holder};

/// A device as the driver and the health machine tell it. `free`, `schedulable` and `out_of_band` of the state are the
/// ledger's own business: it ignores them here and fills them in its snapshots. The same goes for `free` of MIG slots.
pub type DeviceFacts = DeviceState;

/// One process on a device, in the host's pid namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    pub device: DeviceUuid,
    /// Set on a device that is split by MIG, where the driver tells it.
    pub mig_instance: Option<DeviceUuid>,
    pub pid: u32,
    pub used_memory_bytes: Option<u64>,
    /// The pod whose container the process belongs to, where the daemon could find that out (from its cgroup).
    pub pod_uid: Option<PodUid>,
}

/// What the kubelet assigned to one pod: all its containers together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub namespace: String,
    pub name: String,
    /// GPUs and MIG instances, without the replica suffix of time slicing, with repetition where replicas repeat.
    pub devices: Vec<DeviceUuid>,
    /// True where the kubelet gave time-sliced replicas: then a device is shared, not held.
    pub shared: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// All devices of the node, whenever something of theirs changed.
    Devices(Vec<DeviceFacts>),
    /// All that the kubelet assigned, each time that it was asked. The first one opens the book for grants. Pods without
    /// devices belong in it too (with none): so a share that is not the kubelet's to give is confirmed.
    Kubelet(Vec<Assignment>),
    /// There is no kubelet on this node (or none that we may ask): opens the book for grants, confirms nothing.
    NoKubelet,
    /// All processes on all devices.
    Processes(Vec<GpuProcess>),
    Reserve {
        pod: PodRef,
        shape: Shape,
        ttl_ms: u64,
        preferred: Vec<DeviceUuid>,
        client: String,
        decision_id: String,
    },
    Acquire {
        lease: LeaseId,
        shape: Shape,
        client: String,
    },
    Release {
        holder: Holder,
    },
    SetSchedulable {
        device: DeviceUuid,
        schedulable: bool,
        message: String,
    },
    /// Time has passed: lapses what is due. Due no later than `Ledger::next_deadline`.
    Tick,
}

/// The answer to an event.
#[expect(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// For Reserve and Acquire. `existing`: the holder had the same already.
    Granted { claim: Claim, existing: bool },
    /// For Release.
    Released { was_held: bool },
    /// For everything else.
    Done,
}

/// Why a request was not granted. The book is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestRefused {
    #[error("the book is not yet reconciled with the driver and the kubelet")]
    NotReconciled,
    #[error("{0}")]
    NoRoom(Refusal),
    #[error("{holder} already holds {held}")]
    HolderHasOther { holder: Holder, held: Shape },
    #[error("no device {0} on this node")]
    UnknownDevice(DeviceUuid),
    #[error("the request asks for no GPU")]
    NothingAsked,
}

/// What must be on disk before the answer goes out. Replaying all records in order gives the same book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A claim as it is from now on: new, prolonged, re-planned or confirmed.
    Put(Claim),
    Removed {
        holder: Holder,
        reason: String,
    },
    Schedulable {
        device: DeviceUuid,
        schedulable: bool,
        message: String,
    },
    /// Generations up to this one may have been told to clients.
    Generation(u64),
}

/// What the shell has to do, in order. Records first, then the answer, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Persist(Record),
    /// The snapshot is another: publish it.
    Changed,
    /// A holder lost its claim without having asked: lapsed, displaced by the kubelet, device gone for good.
    Revoked {
        holder: Holder,
        pod: Option<PodRef>,
        reason: &'static str,
        message: String,
    },
    /// A disagreement began or ended.
    DriftBegan(Drift),
    DriftEnded(Drift),
}

/// Two sources that disagree for longer than the grace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub reason: DriftReason,
    pub holder: Option<Holder>,
    pub device: Option<DeviceUuid>,
    pub message: String,
    pub since_unix_ms: u64,
}

/// The kinds of drift. The names are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DriftReason {
    /// Allocated here, but the kubelet no longer tells of the pod.
    AllocationWithoutKubelet,
    /// A process runs where nobody holds the device.
    ProcessWithoutAllocation,
    /// Somebody holds a device that the driver no longer finds.
    DeviceMissing,
    /// The kubelet gave more of a device than it has.
    OverCommitted,
    /// The kubelet gave a device that must be avoided or that MIG no longer has.
    AssignedUnusable,
}

impl DriftReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllocationWithoutKubelet => "AllocationWithoutKubelet",
            Self::ProcessWithoutAllocation => "ProcessWithoutAllocation",
            Self::DeviceMissing => "DeviceMissing",
            Self::OverCommitted => "OverCommitted",
            Self::AssignedUnusable => "AssignedUnusable",
        }
    }
}

impl RequestRefused {
    /// Stable CamelCase name: gRPC detail, event, metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotReconciled => "NotReconciled",
            Self::NoRoom(refusal) => refusal.reason.as_str(),
            Self::HolderHasOther { .. } => "HolderHasOther",
            Self::UnknownDevice(_) => "UnknownDevice",
            Self::NothingAsked => "NothingAsked",
        }
    }
}
