//! Leases: who waits for one, whose stream is open, and whose stream was lost with the daemon before this one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use berth_ledger::{Event, Holder, Snapshot};
use tokio::sync::oneshot;

use super::{BookError, Lease, Revocation};

/// How long a lease outlives the daemon that granted it. Its stream ended with that daemon and cannot be taken up again,
/// but its job may still run: within this time the GPU goes to nobody else. What runs on afterwards is told as
/// out-of-band use, which keeps the GPU out of scheduling too.
pub(crate) const LEASE_GRACE: Duration = Duration::from_secs(30);

/// Knows nothing of the ledger: the actor asks it what to try and tells it what came of it.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// In the order of asking. Those whose client left go out with the next who comes, so it is bounded by the streams.
    waiting: VecDeque<Waiter>,
    /// The number of the next who waits.
    next: u64,
    open: BTreeMap<Holder, oneshot::Sender<Revocation>>,
    /// From the daemon before, with the time at which each ends (Unix milliseconds).
    orphans: Vec<(Holder, u64)>,
}

/// A client that waits for room.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Its place in the order of asking.
    number: u64,
    pub(super) acquire: Event,
    pub(super) granted: oneshot::Sender<Lease>,
}

impl Leases {
    /// `book` as it was replayed: every lease in it has lost its stream.
    pub(super) fn after_restart(book: &Snapshot, now_ms: u64) -> Self {
        let grace_ms = u64::try_from(LEASE_GRACE.as_millis()).unwrap_or(u64::MAX);
        let ends = now_ms.saturating_add(grace_ms);
        let leases = book
            .claims
            .iter()
            .filter(|claim| matches!(claim.holder, Holder::Lease(_)));
        let orphans = leases.map(|claim| (claim.holder.clone(), ends)).collect();
        Self {
            orphans,
            ..Self::default()
        }
    }

    pub(super) fn wait(&mut self, acquire: Event) -> oneshot::Receiver<Lease> {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        let (granted, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.keep_waiting(Waiter {
            number,
            acquire,
            granted,
        });
        receiver
    }

    /// Those that still wait, to be tried anew; the ones that get nothing go back by [`Self::keep_waiting`].
    pub(super) fn take_waiting(&mut self) -> VecDeque<Waiter> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|waiter| !waiter.granted.is_closed());
        waiting
    }

    /// At its old place.
    pub(super) fn keep_waiting(&mut self, waiter: Waiter) {
        let place = self.waiting.partition_point(|other| other.number < waiter.number);
        self.waiting.insert(place, waiter);
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A lease is granted and about to be told.
    pub(super) fn opened(&mut self, holder: Holder) -> oneshot::Receiver<Revocation> {
        let (sender, revoked) = oneshot::channel();
        self.open.insert(holder, sender);
        revoked
    }

    /// It is out of the book by its holder's wish or somebody else's.
    pub(super) fn released(&mut self, holder: &Holder) {
        self.open.remove(holder);
        self.orphans.retain(|(orphan, _)| orphan != holder);
    }

    /// It was taken away.
    pub(super) fn revoked(&mut self, holder: &Holder, reason: &'static str, message: &str) {
        self.orphans.retain(|(orphan, _)| orphan != holder);
        if let Some(open) = self.open.remove(holder) {
            // Err: its stream has just ended by itself.
            open.send(Revocation {
                reason,
                message: message.to_owned(),
            })
            .ok();
        }
    }

    /// Orphans whose grace is over.
    pub(super) fn take_expired(&mut self, now_ms: u64) -> Vec<Holder> {
        self.orphans
            .extract_if(.., |(_, ends)| *ends <= now_ms)
            .map(|(holder, _)| holder)
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.orphans.iter().map(|(_, ends)| *ends).min()
    }
}

impl Waiter {
    /// Refusals that more room may mend.
    pub(super) fn is_worth_waiting(refused: &BookError) -> bool {
        use berth_ledger::RequestRefused::{NoRoom, NotReconciled};
        matches!(
            refused,
            BookError::Refused(NoRoom(_) | NotReconciled) | BookError::JournalUnavailable { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anything() -> Event {
        Event::Tick
    }

    #[test]
    fn whoever_left_is_forgotten_when_the_next_one_comes() {
        let mut leases = Leases::default();
        for _ in 0..1000 {
            drop(leases.wait(anything()));
        }
        let _still_here = leases.wait(anything());
        assert_eq!(leases.waiting.len(), 1);
    }

    #[test]
    fn whoever_got_nothing_keeps_its_place_before_those_who_came_meanwhile() {
        let mut leases = Leases::default();
        let mut receivers = vec![leases.wait(anything()), leases.wait(anything())];
        let tried = leases.take_waiting();
        receivers.push(leases.wait(anything()));
        for waiter in tried {
            leases.keep_waiting(waiter);
        }
        let order: Vec<_> = leases.take_waiting().iter().map(|waiter| waiter.number).collect();
        assert_eq!(order, [0, 1, 2]);
    }
}
