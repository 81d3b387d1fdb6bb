//! Records: what was promised survives a restart, and no generation is told twice.
//!
//! Generations are reserved on disk in blocks: a record tells the limit, numbers below it may have been told, and a ledger
//! that is replayed begins at the limit.

use std::sync::Arc;

use berth_placement::Room;
use thiserror::Error;

use super::{Ledger, requests::asks_nothing};
use crate::{Claim, ClaimState, Effect, Holder, Record, outbox::Outbox};

/// How many generations one record reserves.
const GENERATION_BLOCK: u64 = 1000;

/// A record that no ledger has written. The book is as it was before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplayError {
    #[error("records can be replayed only before the first event")]
    AlreadyRunning,
    #[error("the record of {holder} contradicts itself: {rule}")]
    BadClaim { holder: Holder, rule: &'static str },
}

impl ReplayError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AlreadyRunning => "AlreadyRunning",
            Self::BadClaim { .. } => "BadClaim",
        }
    }
}

impl Ledger {
    /// Takes a record in: at start, in the order of their writing, before the first event.
    pub fn replay(&mut self, record: Record) -> Result<(), ReplayError> {
        if self.timer.now.is_some() {
            return Err(ReplayError::AlreadyRunning);
        }
        match record {
            Record::Put(claim) => {
                if let Err(rule) = check_persisted(&claim) {
                    let holder = claim.holder;
                    return Err(ReplayError::BadClaim { holder, rule });
                }
                let made = claim.granted_unix_ms;
                self.book.put(Arc::new(claim), made);
            }
            // A rewritten journal may tell again of what is gone already.
            Record::Removed { holder, .. } => drop(self.book.remove(&holder)),
            Record::Schedulable {
                device,
                schedulable,
                message,
            } => {
                let cordons = Arc::make_mut(&mut self.cordons);
                if schedulable {
                    cordons.remove(&device);
                } else {
                    cordons.insert(device, message);
                }
            }
            Record::Generation(limit) => {
                self.generation_limit = self.generation_limit.max(limit);
                Arc::make_mut(&mut self.node).generation = self.generation_limit;
            }
        }
        Ok(())
    }

    /// The whole book as records: replayed, they give the same book. For rewriting a journal that has grown.
    pub fn compact(&self) -> Vec<Record> {
        let mut entries: Vec<_> = self.book.iter().map(|(_, entry)| entry).collect();
        entries.retain(|entry| !matches!(entry.claim.state, ClaimState::Foreign { .. }));
        entries.sort_by_key(|entry| entry.order);
        let cordons = self.cordons.iter().map(|(device, message)| Record::Schedulable {
            device: device.clone(),
            schedulable: false,
            message: message.clone(),
        });
        let claims = entries.into_iter().map(|entry| Record::Put((*entry.claim).clone()));
        std::iter::once(Record::Generation(self.generation_limit))
            .chain(cordons)
            .chain(claims)
            .collect()
    }

    /// Something that readers see beside the book is another (a condition, a reading): gives that a number too.
    pub fn touch(&mut self, effects: &mut Vec<Effect>) {
        let mut out = Outbox::new(effects);
        out.change();
        self.advance_generation(&mut out);
        out.finish();
    }

    /// Gives the changed book a number that was never told.
    pub(super) fn advance_generation(&mut self, out: &mut Outbox<'_>) {
        if !out.has_changed() {
            return;
        }
        let node = Arc::make_mut(&mut self.node);
        node.generation += 1;
        if node.generation >= self.generation_limit {
            self.generation_limit = node.generation + GENERATION_BLOCK;
            out.persist(Record::Generation(self.generation_limit));
        }
    }
}

/// The rules that every persisted claim obeys.
pub(super) fn check_persisted(claim: &Claim) -> Result<(), &'static str> {
    match (&claim.holder, &claim.pod, &claim.state) {
        (Holder::Foreign(_), ..) | (.., ClaimState::Foreign { .. }) => {
            return Err("foreign claims are never persisted");
        }
        (Holder::Lease(_), None, ClaimState::Leased) => {}
        (Holder::Pod(uid), Some(pod), ClaimState::Reserved { .. } | ClaimState::Allocated { .. })
            if pod.uid == *uid => {}
        _ => return Err("holder, pod and state do not go together"),
    }
    if claim.grants.is_empty() || asks_nothing(&claim.shape) {
        return Err("it holds nothing");
    }
    let empty = berth_placement::GrantSize::Share(Room::default());
    if claim.grants.iter().any(|grant| grant.size == empty) {
        return Err("a share of it is empty");
    }
    Ok(())
}
