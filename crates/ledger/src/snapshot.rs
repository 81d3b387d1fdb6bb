//! The book at one instant, for readers: immutable, and cheap to make and to clone.

use std::{collections::BTreeMap, sync::Arc};

use berth_placement::{DeviceState, DeviceUuid, NodeState, PodUid};
use serde::{Deserialize, Serialize};

use crate::{Claim, Drift, Holder};

/// What readers see. Two snapshots of one generation are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// For placement: the present devices with what is free of each. Its `generation` is this snapshot's.
    pub node: Arc<NodeState>,
    /// Sorted by holder.
    pub claims: Arc<[Arc<Claim>]>,
    /// Sorted by reason, holder, device.
    pub drifts: Arc<[Drift]>,
    /// Sorted by device and pid.
    pub out_of_band: Arc<[OutOfBandUse]>,
    /// Devices that are held, or were when they vanished, and that the driver no longer finds: as they were last.
    pub missing: Arc<BTreeMap<DeviceUuid, DeviceState>>,
    /// Devices taken out of scheduling, with the operator's message; also of devices that are not here now.
    pub cordons: Arc<BTreeMap<DeviceUuid, String>>,
    /// The driver and the kubelet have been heard: requests are granted.
    pub reconciled: bool,
}

/// A process that nobody assigned, on a device (or in a MIG instance) that nobody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfBandUse {
    pub device: DeviceUuid,
    pub mig_instance: Option<DeviceUuid>,
    /// In the host's pid namespace.
    pub pid: u32,
    pub used_memory_bytes: Option<u64>,
    /// The pod that it belongs to, where that is known: one that holds nothing of this device.
    pub pod_uid: Option<PodUid>,
    pub since_unix_ms: u64,
}

impl Snapshot {
    /// Grows with every change, also across restarts.
    pub fn generation(&self) -> u64 {
        self.node.generation
    }

    pub fn claim(&self, holder: &Holder) -> Option<&Arc<Claim>> {
        let at = self.claims.binary_search_by(|claim| claim.holder.cmp(holder)).ok()?;
        self.claims.get(at)
    }
}
