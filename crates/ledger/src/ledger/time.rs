//! Deadlines, and clocks that jump.
//!
//! A reservation that the kubelet did not confirm lapses with the first list after its deadline: while the kubelet is not
//! heard its pod may run. Nor in the first lists after a start or an outage, which may lack what runs. Where there is no
//! kubelet it lapses at its deadline.

use super::{Ledger, kubelet::Kubelet, removal};
use crate::{ClaimState, outbox::Outbox};

/// The ledger's sense of time, in milliseconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Timer {
    /// Of the last event; `None` before the first.
    pub(super) now: Option<u64>,
    /// Nothing falls due before this. May be early: prolonging a deadline does not move it.
    pub(super) next_due: u64,
}

impl Default for Timer {
    fn default() -> Self {
        Self {
            now: None,
            next_due: u64::MAX,
        }
    }
}

impl Ledger {
    /// When a [`crate::Event::Tick`] is wanted, in Unix milliseconds: never later than the next thing falls due, sometimes
    /// earlier. `None`: nothing is waited for.
    pub fn next_deadline(&self) -> Option<u64> {
        (self.timer.next_due != u64::MAX).then_some(self.timer.next_due)
    }

    pub(super) fn now(&self) -> u64 {
        self.timer.now.unwrap_or(0)
    }

    pub(super) fn is_due(&self) -> bool {
        self.now() >= self.timer.next_due
    }

    /// Where time went back since the last event (or since the records were written), no wait may become longer than it
    /// would be if it began now.
    pub(super) fn set_clock(&mut self, now: u64, out: &mut Outbox<'_>) {
        let back = self.timer.now.is_none_or(|last| now < last);
        self.timer.now = Some(now);
        if !back {
            return;
        }
        for notes in self.book.all_notes_mut() {
            notes.made = notes.made.min(now);
            notes.absent_since = notes.absent_since.map(|since| since.min(now));
            notes.unusable_since = notes.unusable_since.map(|since| since.min(now));
        }
        self.drift.set_clock(now);
        self.kubelet.set_clock(now);
        let latest = now.saturating_add(self.config.max_ttl_ms);
        for holder in self.book.reservations() {
            let Some(mut claim) = self.book.get(&holder).map(|entry| (*entry.claim).clone()) else {
                continue;
            };
            if let ClaimState::Reserved { deadline_unix_ms } = &mut claim.state {
                *deadline_unix_ms = latest.min(*deadline_unix_ms);
            }
            self.put_if_other(claim, out);
        }
        self.reset_timer();
    }

    pub(super) fn lapse_reservations(&mut self, out: &mut Outbox<'_>) {
        let Some(until) = self.silent_until() else { return };
        let lapsed: Vec<_> = self
            .book
            .iter()
            .filter(|(_, entry)| matches!(entry.claim.state, ClaimState::Reserved { deadline_unix_ms } if deadline_unix_ms <= until))
            .map(|(holder, _)| holder.clone())
            .collect();
        for holder in &lapsed {
            self.remove(
                holder,
                removal::LAPSED,
                "the kubelet did not confirm the reservation in time",
                out,
            );
        }
        self.sync_devices(out);
    }

    /// Reservations with a deadline up to this have lapsed.
    pub(super) fn silent_until(&self) -> Option<u64> {
        self.kubelet.silent_until(self.now(), self.config.kubelet_grace_ms)
    }

    /// Finds the next thing that falls due, exactly.
    pub(super) fn reset_timer(&mut self) {
        self.timer.next_due = self.earliest_due();
    }

    pub(super) fn earliest_due(&self) -> u64 {
        let of_drift = self.drift.earliest_due(&self.config);
        if !self.is_reconciled() {
            return of_drift;
        }
        // Else a list is waited for, not a time.
        let lapse_by_time = matches!(self.kubelet, Kubelet::Absent);
        let of_claims = self.book.iter().flat_map(|(_, entry)| {
            let deadline = match entry.claim.state {
                ClaimState::Reserved { deadline_unix_ms } if lapse_by_time => Some(deadline_unix_ms),
                _ => None,
            };
            let lost = entry
                .notes
                .unusable_since
                .map(|since| since.saturating_add(self.config.drift_grace_ms));
            [deadline, lost].into_iter().flatten()
        });
        of_claims.min().unwrap_or(u64::MAX).min(of_drift)
    }
}
