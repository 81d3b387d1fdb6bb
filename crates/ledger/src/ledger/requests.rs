//! What clients ask for: Reserve, Acquire, Release.
//!
//! A holder has at most one claim. Asked again for the same shape, it gets the same answer and, while it is a reservation,
//! a later deadline (never an earlier one); asked for another shape, it is refused.

use berth_placement::{DeviceUuid, GpuShape, LeaseId, MemoryBytes, MilliGpu, PodRef, Shape, ShareSize, fit};

use super::{Ledger, kubelet::Evidence, removal};
use crate::{Claim, ClaimState, Holder, Reply, RequestRefused, book::Entry, outbox::Outbox};

/// Who asks for a reservation.
#[derive(Debug)]
pub(super) struct ForPod {
    pub(super) pod: PodRef,
    pub(super) client: String,
    pub(super) decision_id: String,
}

impl Ledger {
    pub(super) fn reserve(
        &mut self,
        who: ForPod,
        shape: Shape,
        ttl_ms: u64,
        preferred: &[DeviceUuid],
        out: &mut Outbox<'_>,
    ) -> Result<Reply, RequestRefused> {
        let ttl = if ttl_ms == 0 {
            self.config.default_ttl_ms
        } else {
            ttl_ms
        };
        let deadline = self.now().saturating_add(ttl.min(self.config.max_ttl_ms));
        let holder = Holder::Pod(who.pod.uid.clone());
        if let Some(mut existing) = self.existing(&holder, &shape)? {
            if existing.unusable {
                // Its device failed, and nothing else was free so far: it may not be told to use that one.
                existing.claim.grants = self.plan_apart(&holder).map_err(RequestRefused::NoRoom)?;
            }
            if let ClaimState::Reserved { deadline_unix_ms } = &mut existing.claim.state {
                *deadline_unix_ms = deadline.max(*deadline_unix_ms);
            }
            self.put_if_other(existing.claim.clone(), out);
            return Ok(self.granted(existing.claim, true, out));
        }
        let plan = fit::plan_preferring(&self.node, &shape, preferred).map_err(RequestRefused::NoRoom)?;
        let claim = Claim {
            holder,
            pod: Some(who.pod),
            shape,
            grants: plan.grants,
            state: ClaimState::Reserved {
                deadline_unix_ms: deadline,
            },
            granted_unix_ms: self.now(),
            client: who.client,
            decision_id: who.decision_id,
        };
        self.put(claim.clone(), out);
        Ok(self.granted(claim, false, out))
    }

    /// A lease lives until it is released: the shell does that when the client's stream ends, and after a restart for
    /// every lease whose client did not come back.
    pub(super) fn acquire(
        &mut self,
        lease: LeaseId,
        shape: Shape,
        client: String,
        out: &mut Outbox<'_>,
    ) -> Result<Reply, RequestRefused> {
        let holder = Holder::Lease(lease);
        if let Some(existing) = self.existing(&holder, &shape)? {
            return Ok(self.granted(existing.claim, true, out));
        }
        let plan = fit::plan(&self.node, &shape).map_err(RequestRefused::NoRoom)?;
        let claim = Claim {
            holder,
            pod: None,
            shape,
            grants: plan.grants,
            state: ClaimState::Leased,
            granted_unix_ms: self.now(),
            client,
            decision_id: String::new(),
        };
        self.put(claim.clone(), out);
        Ok(self.granted(claim, false, out))
    }

    /// Frees what the holder has, at once. An allocated pod that the kubelet still tells of becomes a foreign one instead:
    /// its devices are not free before the kubelet says so (once: it need not say so for the grace). A foreign claim is the
    /// kubelet's, not the asker's: releasing it does nothing.
    pub(super) fn release(&mut self, holder: &Holder, out: &mut Outbox<'_>) -> Reply {
        if matches!(holder, Holder::Foreign(_)) {
            return Reply::Released { was_held: false };
        }
        let Some(entry) = self.book.remove(holder) else {
            return Reply::Released { was_held: false };
        };
        out.tell_removal(&entry.claim, removal::RELEASED, "");
        if entry.is_allocated() {
            self.hand_to_kubelet(&entry, out);
        }
        self.sync_devices(out);
        if entry.is_allocated() || self.removal_disturbs(&entry.claim) {
            self.settle(out);
        }
        Reply::Released { was_held: true }
    }

    /// What the last list still gives the released pod is the kubelet's to end: with its next list that lacks the pod.
    fn hand_to_kubelet(&mut self, entry: &Entry, out: &mut Outbox<'_>) {
        let foreign = entry.claim.pod.as_ref().map(|pod| Holder::Foreign(pod.to_string()));
        // Another pod's, of which nobody said that it is gone.
        let before = foreign.filter(|foreign| self.book.get(foreign).is_none());
        self.match_assignments(Evidence::Old, out);
        let made = before
            .and_then(|foreign| self.book.get(&foreign))
            .map(|entry| (*entry.claim).clone());
        if let Some(mut claim) = made
            && let ClaimState::Foreign { released, .. } = &mut claim.state
        {
            *released = true;
            self.put(claim, out);
        }
    }

    /// What the holder has already; an error where a request cannot be granted whatever is free.
    fn existing(&self, holder: &Holder, shape: &Shape) -> Result<Option<Existing>, RequestRefused> {
        if !self.is_reconciled() {
            return Err(RequestRefused::NotReconciled);
        }
        if asks_nothing(shape) {
            return Err(RequestRefused::NothingAsked);
        }
        let Some(entry) = self.book.get(holder) else {
            return Ok(None);
        };
        if entry.claim.shape != *shape {
            return Err(RequestRefused::HolderHasOther {
                holder: holder.clone(),
                held: entry.claim.shape.clone(),
            });
        }
        Ok(Some(Existing {
            claim: (*entry.claim).clone(),
            unusable: entry.notes.unusable_since.is_some(),
        }))
    }

    fn granted(&mut self, claim: Claim, existing: bool, out: &mut Outbox<'_>) -> Reply {
        self.sync_devices(out);
        if self.covers_strangers(&claim) {
            self.settle(out);
        }
        Reply::Granted { claim, existing }
    }

    /// Whether a removal has consequences beyond its devices' sums: for drift, for processes, for reservations that wait.
    fn removal_disturbs(&self, claim: &Claim) -> bool {
        self.drift.concerns(claim)
            || self.has_processes(claim)
            || self.book.iter().any(|(_, entry)| entry.notes.unusable_since.is_some())
    }
}

struct Existing {
    claim: Claim,
    unusable: bool,
}

/// A shape that takes no part of any device.
pub(super) fn asks_nothing(shape: &Shape) -> bool {
    let empty = |size: &ShareSize| match size {
        ShareSize::Milli(milli) => *milli == MilliGpu::ZERO,
        ShareSize::Memory(memory) => *memory == MemoryBytes::ZERO,
        ShareSize::Both(milli, memory) => *milli == MilliGpu::ZERO && *memory == MemoryBytes::ZERO,
    };
    shape.gpu.count() == 0 || matches!(&shape.gpu, GpuShape::Share { size, .. } if empty(size))
}
