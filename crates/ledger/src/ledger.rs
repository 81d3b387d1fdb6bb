//! The ledger: one event at a time changes the book, and says what the shell must do about it.
//!
//! This file owns the state and the order of steps within an event; each step lives in a module of its own.

mod devices;
mod drift;
mod invariants;
mod journal;
mod kubelet;
mod replan;
mod requests;
#[cfg(test)]
mod tests;
mod time;

use std::{collections::BTreeMap, sync::Arc};

use berth_placement::{DeviceState, DeviceUuid, NodeName, NodeState, NodeVerdict, Shape, fit};

use self::{drift::DriftBook, kubelet::Kubelet, time::Timer};
pub use self::{invariants::Violation, journal::ReplayError};
use crate::{
    Claim, ClaimState, Effect, Event, GpuProcess, Holder, LedgerConfig, OutOfBandUse, Record, Reply, RequestRefused,
    Snapshot, book::Book, outbox::Outbox,
};

/// Why a claim was removed: the `reason` of [`Record::Removed`] and of [`Effect::Revoked`]. The names are a contract.
pub mod removal {
    /// The holder gave it back.
    pub const RELEASED: &str = "Released";
    /// A reservation that the kubelet did not confirm before its deadline.
    pub const LAPSED: &str = "Lapsed";
    /// The kubelet's lists lacked an allocated pod for longer than the grace.
    pub const POD_GONE: &str = "PodGone";
    /// The kubelet shows a newer pod of the same name in its place.
    pub const REPLACED: &str = "Replaced";
    /// The kubelet gave a reservation's devices to another pod, and no others are free.
    pub const DISPLACED_BY_KUBELET: &str = "DisplacedByKubelet";
    /// A reservation's device failed, vanished or was split, and no other one became free within the grace.
    pub const DEVICE_LOST: &str = "DeviceLost";
}

/// One node's book of who holds what.
///
/// Records are replayed first, then events come one by one, each with the time in milliseconds since the Unix epoch.
/// That clock should not jump; where it does, promises may lapse early or late (never later than
/// [`LedgerConfig::max_ttl_ms`] after the jump), and the sums stay right.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    /// The present devices, with what is free of each: always in step with the book.
    node: Arc<NodeState>,
    missing: Arc<BTreeMap<DeviceUuid, DeviceState>>,
    cordons: Arc<BTreeMap<DeviceUuid, String>>,
    book: Book,
    /// The driver was heard.
    devices_seen: bool,
    kubelet: Kubelet,
    /// Sorted by device, instance, pid.
    processes: Vec<GpuProcess>,
    out_of_band: Arc<[OutOfBandUse]>,
    drift: DriftBook,
    timer: Timer,
    /// Generations below this one are reserved on disk.
    generation_limit: u64,
}

impl Ledger {
    pub fn new(node: NodeName, config: LedgerConfig) -> Self {
        Self {
            config,
            node: Arc::new(NodeState::of_devices(node, 0, Vec::new())),
            missing: Arc::default(),
            cordons: Arc::default(),
            book: Book::default(),
            devices_seen: false,
            kubelet: Kubelet::Unknown,
            processes: Vec::new(),
            out_of_band: Arc::default(),
            drift: DriftBook::default(),
            timer: Timer::default(),
            generation_limit: 0,
        }
    }

    /// Takes one event in. Effects are appended, in the order in which they must be acted on: records first (on disk
    /// before the answer), then revocations and drift, then at most one [`Effect::Changed`].
    ///
    /// A refused request leaves the book as it is, but effects may come with the refusal too: what was due at `now_unix_ms`
    /// lapses first.
    pub fn apply(
        &mut self,
        now_unix_ms: u64,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, RequestRefused> {
        let mut out = Outbox::new(effects);
        self.set_clock(now_unix_ms, &mut out);
        let reply = self.dispatch(event, &mut out);
        self.advance_generation(&mut out);
        out.finish();
        debug_assert_eq!(self.check_invariants(), Ok(()));
        reply
    }

    fn dispatch(&mut self, event: Event, out: &mut Outbox<'_>) -> Result<Reply, RequestRefused> {
        // A request finds the book as it is at its time. Evidence is weighed before anything lapses: a pod that the
        // kubelet confirms in the instant of its deadline has made it.
        let is_request = matches!(
            event,
            Event::Reserve { .. } | Event::Acquire { .. } | Event::Release { .. } | Event::SetSchedulable { .. }
        );
        if is_request && self.is_due() {
            self.settle(out);
        }
        match event {
            Event::Reserve {
                pod,
                shape,
                ttl_ms,
                preferred,
                client,
                decision_id,
            } => {
                return self.reserve(
                    requests::ForPod {
                        pod,
                        client,
                        decision_id,
                    },
                    shape,
                    ttl_ms,
                    &preferred,
                    out,
                );
            }
            Event::Acquire { lease, shape, client } => return self.acquire(lease, shape, client, out),
            Event::Release { holder } => return Ok(self.release(&holder, out)),
            Event::SetSchedulable {
                device,
                schedulable,
                message,
            } => self.set_schedulable(device, schedulable, message, out)?,
            Event::Devices(facts) => self.observe_devices(facts, out),
            Event::Kubelet(assignments) => self.observe_kubelet(assignments, out),
            Event::NoKubelet => self.observe_no_kubelet(out),
            Event::Processes(processes) => self.observe_processes(processes),
            Event::Tick => {
                if !self.is_due() {
                    return Ok(Reply::Done);
                }
            }
        }
        self.settle(out);
        Ok(Reply::Done)
    }

    /// Draws every consequence of what is known now. Requests that disturb nothing do without it.
    ///
    /// Before the book is reconciled nothing is concluded: half of the evidence would make a pod's process a stranger,
    /// and a device that the driver has yet to find a lost one.
    fn settle(&mut self, out: &mut Outbox<'_>) {
        self.sync_devices(out);
        if self.is_reconciled() {
            self.review_processes(out);
            self.lapse_reservations(out);
            self.displace_reservations(out);
            self.mend_reservations(out);
            self.review_processes(out);
            self.review_drift(out);
        }
        self.reset_timer();
    }

    /// The driver and the kubelet have been heard.
    fn is_reconciled(&self) -> bool {
        self.devices_seen && !matches!(self.kubelet, Kubelet::Unknown)
    }

    /// The book as it is now: a few reference counts and one list of claims.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            node: Arc::clone(&self.node),
            claims: self.book.iter().map(|(_, entry)| Arc::clone(&entry.claim)).collect(),
            drifts: self.drift.told(),
            out_of_band: Arc::clone(&self.out_of_band),
            missing: Arc::clone(&self.missing),
            cordons: Arc::clone(&self.cordons),
            reconciled: self.is_reconciled(),
        }
    }

    /// What [`Event::Reserve`] would answer to a new pod of this shape, once the book is reconciled; and each device's
    /// verdict. Changes nothing.
    pub fn explain(&self, shape: &Shape) -> NodeVerdict {
        fit::explain(&self.node, shape)
    }

    /// Writes a claim into the book and into the journal.
    fn put(&mut self, claim: Claim, out: &mut Outbox<'_>) {
        if let ClaimState::Reserved { deadline_unix_ms } = claim.state {
            self.timer.next_due = self.timer.next_due.min(deadline_unix_ms);
        }
        if !matches!(claim.state, ClaimState::Foreign { .. }) {
            out.persist(Record::Put(claim.clone()));
        }
        self.book.put(Arc::new(claim), self.now());
        out.change();
    }

    /// As [`Ledger::put`], where the holder's claim differs from this.
    fn put_if_other(&mut self, claim: Claim, out: &mut Outbox<'_>) {
        if self.book.get(&claim.holder).is_none_or(|entry| *entry.claim != claim) {
            self.put(claim, out);
        }
    }

    /// Removes a claim for good and, where its holder did not ask for that, tells so.
    fn remove(&mut self, holder: &Holder, reason: &'static str, message: &str, out: &mut Outbox<'_>) {
        if let Some(entry) = self.book.remove(holder) {
            out.tell_removal(&entry.claim, reason, message);
        }
    }
}
