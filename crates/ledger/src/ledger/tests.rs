//! One test for each rule; the property test (`tests/property.rs`) mixes them all.

mod devices;
mod drift;
mod journal;
mod kubelet;
mod replan;
mod requests;
mod time;

use std::sync::Arc;

use berth_placement::{
    ComputeMode, DeviceState, DeviceUuid, GpuShape, Grant, GrantSize, Health, LeaseId, MemoryBytes, MigSlot, MilliGpu,
    NodeName, PodRef, Room, Shape,
};

use super::{Ledger, removal};
use crate::{
    Assignment, Claim, ClaimState, Drift, DriftReason, Effect, Event, GpuProcess, Holder, LedgerConfig, Record, Reply,
    RequestRefused, Snapshot,
};

/// A point in time from which the tests count.
const START: u64 = 1_700_000_000_000;
const GIB: u64 = 1 << 30;

/// A ledger with its shell: the clock, the journal, and what was told. Checks after every event what must always hold.
struct Desk {
    ledger: Ledger,
    now: u64,
    journal: Vec<Record>,
    /// Revocations and drift since they were last looked at.
    told: Vec<Effect>,
}

impl Desk {
    /// Reconciled, with these devices and a kubelet that tells of no pod.
    fn with(devices: Vec<DeviceState>) -> Self {
        let mut desk = Self::unreconciled();
        desk.apply(Event::Devices(devices)).unwrap();
        desk.kubelet(vec![]);
        desk
    }

    /// Reconciled, with that many whole GPUs.
    fn gpus(count: u32) -> Self {
        Self::with((0..count).map(gpu).collect())
    }

    /// Reconciled, with that many whole GPUs, where nobody confirms anything.
    fn without_kubelet(count: u32) -> Self {
        let mut desk = Self::gpus(count);
        desk.apply(Event::NoKubelet).unwrap();
        desk
    }

    fn unreconciled() -> Self {
        Self {
            ledger: Ledger::new(node_name(), LedgerConfig::default()),
            now: START,
            journal: Vec::new(),
            told: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) -> Result<Reply, RequestRefused> {
        let (reply, effects) = self.apply_checked(event);
        for effect in effects {
            match effect {
                Effect::Persist(record) => self.journal.push(record),
                Effect::Changed => {}
                other => self.told.push(other),
            }
        }
        reply
    }

    fn apply_checked(&mut self, event: Event) -> (Result<Reply, RequestRefused>, Vec<Effect>) {
        let before = self.ledger.snapshot();
        let mut effects = Vec::new();
        let reply = self.ledger.apply(self.now, event, &mut effects);
        self.ledger.check_invariants().unwrap();
        let after = self.ledger.snapshot();
        let changes = effects.iter().filter(|effect| **effect == Effect::Changed).count();
        assert_eq!(
            changes,
            usize::from(!same_book(&before, &after)),
            "Changed once, and only then: {effects:?}"
        );
        assert_eq!(after.generation(), before.generation() + changes as u64);
        let limits = self
            .journal
            .iter()
            .chain(effects.iter().filter_map(|effect| match effect {
                Effect::Persist(record) => Some(record),
                _ => None,
            }));
        let limit = limits.filter_map(|record| match record {
            Record::Generation(limit) => Some(*limit),
            _ => None,
        });
        assert!(
            changes == 0 || limit.max().is_some_and(|limit| after.generation() < limit),
            "told above the limit"
        );
        (reply, effects)
    }

    fn devices(&mut self, devices: Vec<DeviceState>) {
        self.apply(Event::Devices(devices)).unwrap();
    }

    fn kubelet(&mut self, list: Vec<Assignment>) {
        self.apply(Event::Kubelet(list)).unwrap();
    }

    fn processes(&mut self, list: Vec<GpuProcess>) {
        self.apply(Event::Processes(list)).unwrap();
    }

    fn tick_after(&mut self, ms: u64) {
        self.now += ms;
        self.apply(Event::Tick).unwrap();
    }

    fn try_reserve(&mut self, pod: &PodRef, shape: &Shape) -> Result<Claim, RequestRefused> {
        self.apply(reserve(pod, shape)).map(|reply| claim_of(&reply))
    }

    fn reserve(&mut self, pod: &PodRef, shape: &Shape) -> Claim {
        self.try_reserve(pod, shape).unwrap()
    }

    fn acquire(&mut self, lease: &str, shape: &Shape) -> Result<Claim, RequestRefused> {
        let event = Event::Acquire {
            lease: lease_id(lease),
            shape: shape.clone(),
            client: "alice".to_owned(),
        };
        self.apply(event).map(|reply| claim_of(&reply))
    }

    fn release(&mut self, holder: Holder) -> bool {
        match self.apply(Event::Release { holder }).unwrap() {
            Reply::Released { was_held } => was_held,
            other => panic!("{other:?}"),
        }
    }

    fn claim(&self, holder: &Holder) -> Option<Claim> {
        self.ledger.snapshot().claim(holder).map(|claim| (**claim).clone())
    }

    fn claim_of(&self, pod: &PodRef) -> Option<Claim> {
        self.claim(&Holder::Pod(pod.uid.clone()))
    }

    fn foreign(&self, name: &str) -> Option<Claim> {
        self.claim(&Holder::Foreign(name.to_owned()))
    }

    fn free_milli(&self, index: u32) -> u32 {
        self.ledger
            .snapshot()
            .node
            .device(&uuid(index))
            .unwrap()
            .free
            .milli
            .get()
    }

    /// The revocations since the last look: holder and reason.
    fn revoked(&mut self) -> Vec<(Holder, &'static str)> {
        let told = std::mem::take(&mut self.told);
        let revoked = told.iter().filter_map(|effect| match effect {
            Effect::Revoked { holder, reason, .. } => Some((holder.clone(), *reason)),
            _ => None,
        });
        let found = revoked.collect();
        self.told.extend(
            told.into_iter()
                .filter(|effect| !matches!(effect, Effect::Revoked { .. })),
        );
        found
    }

    fn drifts(&self) -> Vec<(DriftReason, Option<Holder>)> {
        let snapshot = self.ledger.snapshot();
        snapshot
            .drifts
            .iter()
            .map(|drift| (drift.reason, drift.holder.clone()))
            .collect()
    }

    /// The process ends; another one replays these records.
    fn restarted(&self, journal: &[Record]) -> Self {
        let mut desk = Self::unreconciled();
        desk.now = self.now;
        for record in journal {
            desk.ledger.replay(record.clone()).unwrap();
        }
        desk.ledger.check_invariants().unwrap();
        desk
    }
}

/// The same but for the generation.
fn same_book(a: &Snapshot, b: &Snapshot) -> bool {
    let mut node = (*b.node).clone();
    node.generation = a.generation();
    *a == Snapshot {
        node: Arc::new(node),
        ..b.clone()
    }
}

fn node_name() -> NodeName {
    "node-1".parse().unwrap()
}

fn uuid(index: u32) -> DeviceUuid {
    format!("GPU-{index}").parse().unwrap()
}

fn instance(index: u32, slot: u32) -> DeviceUuid {
    format!("MIG-{index}-{slot}").parse().unwrap()
}

fn gpu(index: u32) -> DeviceState {
    let memory = MemoryBytes::new(80 * GIB);
    DeviceState {
        uuid: uuid(index),
        index,
        model: "H100".parse().unwrap(),
        memory,
        compute_mode: ComputeMode::Default,
        numa_node: None,
        nvlink_domain: None,
        health: Health::Healthy,
        schedulable: true,
        out_of_band: false,
        mig: None,
        free: Room::whole(memory),
    }
}

/// A GPU split into that many instances.
fn split(index: u32, instances: u32) -> DeviceState {
    let slot = |slot| MigSlot {
        uuid: instance(index, slot),
        profile: "1g.10gb".parse().unwrap(),
        memory: MemoryBytes::new(10 * GIB),
        free: true,
    };
    DeviceState {
        mig: Some((0..instances).map(slot).collect()),
        ..gpu(index)
    }
}

fn sick(index: u32, health: Health) -> DeviceState {
    DeviceState { health, ..gpu(index) }
}

fn pod(name: &str, uid: &str) -> PodRef {
    PodRef::new("prod", name, uid.parse().unwrap()).unwrap()
}

fn holder(pod: &PodRef) -> Holder {
    Holder::Pod(pod.uid.clone())
}

fn lease_id(id: &str) -> LeaseId {
    id.parse().unwrap()
}

fn lease_holder(id: &str) -> Holder {
    Holder::Lease(lease_id(id))
}

fn whole(count: u32) -> Shape {
    Shape::gpu(GpuShape::whole(count).unwrap())
}

fn share(milli: u32) -> Shape {
    Shape::gpu(GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap())
}

fn mig(count: u32) -> Shape {
    Shape::gpu(GpuShape::mig("1g.10gb".parse().unwrap(), count).unwrap())
}

fn reserve(pod: &PodRef, shape: &Shape) -> Event {
    Event::Reserve {
        pod: pod.clone(),
        shape: shape.clone(),
        ttl_ms: 0,
        preferred: Vec::new(),
        client: "scheduler".to_owned(),
        decision_id: "d-1".to_owned(),
    }
}

/// A line of the kubelet's list.
fn told(name: &str, devices: &[DeviceUuid]) -> Assignment {
    Assignment {
        namespace: "prod".to_owned(),
        name: name.to_owned(),
        devices: devices.to_vec(),
        shared: false,
    }
}

fn told_shared(name: &str, devices: &[DeviceUuid]) -> Assignment {
    Assignment {
        shared: true,
        ..told(name, devices)
    }
}

fn process(pid: u32, device: DeviceUuid) -> GpuProcess {
    GpuProcess {
        device,
        mig_instance: None,
        pid,
        used_memory_bytes: Some(GIB),
        pod_uid: None,
    }
}

fn claim_of(reply: &Reply) -> Claim {
    match reply {
        Reply::Granted { claim, .. } => claim.clone(),
        other => panic!("{other:?}"),
    }
}

fn devices_of(claim: &Claim) -> Vec<DeviceUuid> {
    claim.grants.iter().map(|grant| grant.device.clone()).collect()
}
