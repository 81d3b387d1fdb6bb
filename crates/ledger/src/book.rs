//! The claims, with the sums per device kept in step: no claim comes, changes or goes but through here.
//!
//! Owns the order in which holders came (never taken from a clock). Knows nothing of why a claim changes.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use berth_placement::{DeviceUuid, GpuShape, MilliGpu, ShareSize};

use crate::{Claim, ClaimState, Holder, tally::Tally};

#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: BTreeMap<Holder, Entry>,
    tally: Tally,
    next_order: u64,
    /// Devices of which the sums changed since they were last asked for.
    touched: Vec<DeviceUuid>,
}

/// A claim, and what is known of it that readers do not see.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) claim: Arc<Claim>,
    /// Of the holder's coming: larger is newer.
    pub(crate) order: u64,
    pub(crate) notes: Notes,
}

/// Points in time, by the ledger's clock, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notes {
    /// When the holder came.
    pub(crate) made: u64,
    /// Since when the kubelet's lists lack it.
    pub(crate) absent_since: Option<u64>,
    /// Since when its plan rests on a device that cannot be used. Only for reservations.
    pub(crate) unusable_since: Option<u64>,
}

impl Entry {
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self.claim.state, ClaimState::Reserved { .. })
    }

    pub(crate) fn is_allocated(&self) -> bool {
        matches!(self.claim.state, ClaimState::Allocated { .. })
    }
}

impl Claim {
    /// The shape of a foreign pod that shares devices with others by time slicing: a share of no known size.
    pub(crate) fn shape_of_stranger(count: u32) -> GpuShape {
        GpuShape::Share {
            size: ShareSize::Milli(MilliGpu::ZERO),
            count,
        }
    }

    pub(crate) fn is_stranger(&self) -> bool {
        matches!(
            &self.shape.gpu,
            GpuShape::Share {
                size: ShareSize::Milli(MilliGpu::ZERO),
                ..
            }
        )
    }
}

impl Book {
    pub(crate) fn get(&self, holder: &Holder) -> Option<&Entry> {
        self.entries.get(holder)
    }

    pub(crate) fn notes_mut(&mut self, holder: &Holder) -> Option<&mut Notes> {
        self.entries.get_mut(holder).map(|entry| &mut entry.notes)
    }

    /// By holder.
    pub(crate) fn iter(&self) -> btree_map::Iter<'_, Holder, Entry> {
        self.entries.iter()
    }

    pub(crate) fn all_notes_mut(&mut self) -> impl Iterator<Item = &mut Notes> {
        self.entries.values_mut().map(|entry| &mut entry.notes)
    }

    /// Holders of reservations, in the order of their coming.
    pub(crate) fn reservations(&self) -> Vec<Holder> {
        let mut found: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.is_reserved()).collect();
        found.sort_by_key(|(_, entry)| entry.order);
        found.into_iter().map(|(holder, _)| holder.clone()).collect()
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The holder's claim is this from now on.
    pub(crate) fn put(&mut self, claim: Arc<Claim>, now_ms: u64) {
        self.add(&claim);
        if let Some(entry) = self.entries.get_mut(&claim.holder) {
            let old = std::mem::replace(&mut entry.claim, claim);
            self.subtract(&old);
            return;
        }
        let entry = Entry {
            order: self.next_order,
            notes: Notes {
                made: now_ms,
                absent_since: None,
                unusable_since: None,
            },
            claim,
        };
        self.next_order += 1;
        self.entries.insert(entry.claim.holder.clone(), entry);
    }

    pub(crate) fn remove(&mut self, holder: &Holder) -> Option<Entry> {
        let entry = self.entries.remove(holder)?;
        self.subtract(&entry.claim);
        Some(entry)
    }

    /// Puts back what [`Book::remove`] took, in its old place.
    pub(crate) fn restore(&mut self, entry: Entry) {
        self.add(&entry.claim);
        self.entries.insert(entry.claim.holder.clone(), entry);
    }

    /// The devices touched since the last call, perhaps with repetition.
    pub(crate) fn take_touched(&mut self) -> Vec<DeviceUuid> {
        std::mem::take(&mut self.touched)
    }

    fn add(&mut self, claim: &Claim) {
        for grant in &claim.grants {
            self.tally.add(grant, claim.is_stranger());
            self.touched.push(grant.device.clone());
        }
    }

    fn subtract(&mut self, claim: &Claim) {
        for grant in &claim.grants {
            self.tally.subtract(grant, claim.is_stranger());
            self.touched.push(grant.device.clone());
        }
    }
}
