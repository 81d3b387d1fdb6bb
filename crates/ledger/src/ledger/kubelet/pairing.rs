//! Which of the kubelet's entries is whose: it tells names, we hold UIDs.

use std::collections::BTreeSet;

use berth_placement::{DeviceUuid, GpuShape};

use super::{Evidence, Namesakes, assigned::target};
use crate::{Assignment, Claim, Holder, book::Entry, ledger::Ledger};

impl Ledger {
    /// Which entry is whose, and the entries that are nobody's.
    pub(super) fn pair<'e>(
        &self,
        namesakes: &Namesakes,
        entries: &'e [Assignment],
        evidence: Evidence,
    ) -> (Vec<(Holder, &'e Assignment)>, Vec<&'e Assignment>) {
        let mut left: Vec<&Assignment> = entries.iter().collect();
        let mut pairs: Vec<(Holder, &Assignment)> = Vec::new();
        let mut waiting: Vec<(&Holder, &Entry)> = Vec::new();
        // What was confirmed stays so. But of what was gone and came back while a newer pod waits, that one is the cause.
        let mut newer_waits = false;
        for holder in &namesakes.pods {
            let Some(entry) = self.book.get(holder) else { continue };
            let stays = entry.is_allocated() && !(newer_waits && entry.notes.absent_since.is_some());
            newer_waits |= entry.is_reserved();
            let same = |assignment: &&Assignment| tells_the_same(&entry.claim, assignment);
            match left.iter().position(same).filter(|_| stays) {
                Some(at) => pairs.push((holder.clone(), left.swap_remove(at))),
                None => waiting.push((holder, entry)),
            }
        }
        if evidence == Evidence::Old {
            return (pairs, left);
        }
        let foreign = namesakes.foreign.as_ref().and_then(|foreign| self.book.get(foreign));
        let (mut foreigns, mut fresh): (Vec<_>, Vec<_>) = left.into_iter().partition(|assignment| {
            foreign.is_some_and(|entry| entry.notes.absent_since.is_none() && is_part_of(assignment, &entry.claim))
        });
        waiting.retain(|(holder, entry)| {
            let planned = fresh
                .iter()
                .position(|assignment| tells_the_same(&entry.claim, assignment));
            let some = planned.or_else(|| {
                fresh
                    .iter()
                    .position(|assignment| may_confirm(&entry.claim, assignment))
            });
            let taken = some.map(|at| fresh.swap_remove(at));
            pairs.extend(taken.map(|assignment| ((*holder).clone(), assignment)));
            taken.is_none()
        });
        for (newer, entry) in waiting.into_iter().filter(|(_, entry)| entry.is_reserved()) {
            let grace_is_over = |older: &Entry| {
                let since = older.notes.made.max(entry.notes.made);
                self.now() >= since.saturating_add(self.config.kubelet_grace_ms)
            };
            let theirs = foreigns
                .iter()
                .position(|assignment| may_confirm(&entry.claim, assignment));
            if let Some(at) = theirs.filter(|_| foreign.is_some_and(grace_is_over)) {
                pairs.push((newer.clone(), foreigns.swap_remove(at)));
                continue;
            }
            let older = pairs.iter_mut().filter_map(|(holder, assignment)| {
                let older = self
                    .book
                    .get(holder)
                    .filter(|older| older.order < entry.order && grace_is_over(older))?;
                may_confirm(&entry.claim, assignment).then_some((older.order, holder))
            });
            if let Some((_, holder)) = older.min_by_key(|(order, _)| *order) {
                *holder = newer.clone();
            }
        }
        fresh.append(&mut foreigns);
        (pairs, fresh)
    }
}

fn targets(claim: &Claim) -> BTreeSet<&DeviceUuid> {
    claim.grants.iter().map(target).collect()
}

fn is_share(claim: &Claim) -> bool {
    matches!(claim.shape.gpu, GpuShape::Share { .. })
}

/// Whether the entry may be the claim's pod at all: without devices only where a share needs none from the kubelet.
fn may_confirm(claim: &Claim, assignment: &Assignment) -> bool {
    !assignment.devices.is_empty() || is_share(claim)
}

/// Whether the entry tells just the devices that the claim has.
fn tells_the_same(claim: &Claim, assignment: &Assignment) -> bool {
    if assignment.devices.is_empty() {
        return is_share(claim);
    }
    targets(claim) == assignment.devices.iter().collect()
}

fn is_part_of(assignment: &Assignment, claim: &Claim) -> bool {
    let targets = targets(claim);
    assignment.devices.iter().all(|device| targets.contains(device))
}
