//! What the kubelet assigned: it confirms reservations, moves them, and ends allocations.
//!
//! - **Its choice wins.** A pod that holds a claim becomes Allocated on the devices that the kubelet tells, whatever was
//!   planned. A share keeps its size even where the kubelet tells a whole GPU or replicas of it; a pod that holds a share
//!   and to which the kubelet gave no device (the share is not the kubelet's to give) keeps its plan.
//! - **Nothing is freed by silence.** A kubelet that restarts tells nothing for a while. An allocation (a foreign pod's
//!   too) ends when lists have lacked it for the grace, and only on a list: while the kubelet does not answer, nothing ends.
//! - **Pods nobody reserved for** are foreign claims. They are not persisted: the kubelet tells them again.
//! - **The kubelet knows names, not UIDs.** Of several claims with one name (a pod was re-created) an entry goes to the
//!   newest one, except that an entry which tells just what an older one holds stays with that one for a grace: the
//!   kubelet may not have started the newer pod yet. When the newer one is confirmed and the kubelet shows no other entry
//!   of that name, the older one is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_placement::{DeviceUuid, GpuShape, Grant, GrantSize, Room, Shape, ShareSize};

use super::{Ledger, removal};
use crate::{Assignment, Claim, ClaimState, Holder, book::Entry, outbox::Outbox};

/// What the kubelet said last.
#[derive(Debug)]
pub(super) enum Kubelet {
    Unknown,
    /// There is none, or none that we may ask.
    Absent,
    /// By `namespace/name`.
    Told(Arc<BTreeMap<String, Vec<Assignment>>>),
}

/// Whether the kubelet was asked just now, or its last list is looked at again because something else changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    Fresh,
    /// Its silence proves nothing new.
    Old,
}

/// The claims of one name.
#[derive(Debug, Default)]
struct Namesakes {
    /// The newest first.
    pods: Vec<Holder>,
    foreign: Option<Holder>,
}

impl Ledger {
    pub(super) fn observe_kubelet(&mut self, assignments: Vec<Assignment>, out: &mut Outbox<'_>) {
        let mut told: BTreeMap<String, Vec<Assignment>> = BTreeMap::new();
        for mut assignment in assignments {
            assignment.devices.sort_unstable();
            let namesakes = told
                .entry(format!("{}/{}", assignment.namespace, assignment.name))
                .or_default();
            // Some kubelets go on telling a pod that ended. On the same devices as its successor it is no second holder.
            if !namesakes.contains(&assignment) {
                namesakes.push(assignment);
            }
        }
        self.hear_kubelet(Kubelet::Told(Arc::new(told)), out);
        self.match_assignments(Evidence::Fresh, out);
    }

    /// Foreign claims rest on the kubelet alone, and go. Allocations stay until they are released.
    pub(super) fn observe_no_kubelet(&mut self, out: &mut Outbox<'_>) {
        self.hear_kubelet(Kubelet::Absent, out);
        let foreign: Vec<_> = self.book.iter().map(|(holder, _)| holder.clone()).collect();
        for holder in foreign.iter().filter(|holder| matches!(holder, Holder::Foreign(_))) {
            self.remove(holder, removal::POD_GONE, "", out);
        }
        for notes in self.book.all_notes_mut() {
            notes.absent_since = None;
        }
    }

    fn hear_kubelet(&mut self, kubelet: Kubelet, out: &mut Outbox<'_>) {
        let was_reconciled = self.is_reconciled();
        self.kubelet = kubelet;
        if self.is_reconciled() != was_reconciled {
            out.change();
        }
    }

    /// Brings the claims in line with the kubelet's last list.
    pub(super) fn match_assignments(&mut self, evidence: Evidence, out: &mut Outbox<'_>) {
        let Kubelet::Told(told) = &self.kubelet else { return };
        let told = Arc::clone(told);
        let mut names: BTreeMap<String, Namesakes> =
            told.keys().map(|name| (name.clone(), Namesakes::default())).collect();
        for (holder, entry) in self.book.iter() {
            match (holder, &entry.claim.pod) {
                (Holder::Foreign(name), _) => names.entry(name.clone()).or_default().foreign = Some(holder.clone()),
                (_, Some(pod)) => names.entry(pod.to_string()).or_default().pods.push(holder.clone()),
                (_, None) => {}
            }
        }
        for (name, mut namesakes) in names {
            namesakes
                .pods
                .sort_by_key(|holder| std::cmp::Reverse(self.book.get(holder).map(|entry| entry.order)));
            let entries = told.get(&name).map_or(&[][..], Vec::as_slice);
            self.match_name(&name, &namesakes, entries, evidence, out);
        }
        self.sync_devices(out);
    }

    fn match_name(
        &mut self,
        name: &str,
        namesakes: &Namesakes,
        entries: &[Assignment],
        evidence: Evidence,
        out: &mut Outbox<'_>,
    ) {
        let (pairs, left) = self.pair(namesakes, entries, evidence);
        for (holder, assignment) in &pairs {
            self.confirm(holder, assignment, out);
        }
        if evidence == Evidence::Fresh {
            let mut newer_confirmed = false;
            for holder in &namesakes.pods {
                if pairs.iter().any(|(paired, _)| paired == holder) {
                    newer_confirmed = true;
                } else if newer_confirmed {
                    let message = format!("the kubelet shows a newer pod {name} in its place");
                    self.remove(holder, removal::REPLACED, &message, out);
                } else {
                    self.miss(holder, out);
                }
            }
        }
        let has_devices = |assignment: &&Assignment| !assignment.devices.is_empty();
        let left: Vec<_> = left.into_iter().filter(has_devices).collect();
        match &namesakes.foreign {
            _ if !left.is_empty() => self.put_foreign(name, &left, out),
            // Its name is shown, and for another: it is gone.
            Some(foreign) if entries.iter().any(|assignment| has_devices(&assignment)) => {
                self.remove(foreign, removal::REPLACED, "", out)
            }
            Some(foreign) if evidence == Evidence::Fresh => self.miss(foreign, out),
            _ => {}
        }
    }

    /// Which entry is whose, and the entries that are nobody's.
    fn pair<'e>(
        &self,
        namesakes: &Namesakes,
        entries: &'e [Assignment],
        evidence: Evidence,
    ) -> (Vec<(Holder, &'e Assignment)>, Vec<&'e Assignment>) {
        let mut left: Vec<&Assignment> = entries.iter().collect();
        let mut pairs: Vec<(Holder, &Assignment)> = Vec::new();
        let mut waiting: Vec<(&Holder, &Entry)> = Vec::new();
        // What was confirmed stays so; but of what was gone and came back while there is a newer pod, the newer one is the cause.
        for (place, holder) in namesakes.pods.iter().enumerate() {
            let Some(entry) = self.book.get(holder) else { continue };
            let stays = entry.is_allocated() && (place == 0 || entry.notes.absent_since.is_none());
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

    fn confirm(&mut self, holder: &Holder, assignment: &Assignment, out: &mut Outbox<'_>) {
        let now = self.now();
        if let Some(notes) = self.book.notes_mut(holder) {
            notes.absent_since = None;
            notes.unusable_since = None;
        }
        let Some(mut claim) = self.book.get(holder).map(|entry| (*entry.claim).clone()) else {
            return;
        };
        if !assignment.devices.is_empty() {
            let grants = self.grants_of(assignment, Some(&claim));
            if !same_grants(&grants, &claim.grants) {
                claim.grants = grants;
            }
        }
        if !matches!(claim.state, ClaimState::Allocated { .. }) {
            claim.state = ClaimState::Allocated { since_unix_ms: now };
        }
        self.put_if_other(claim, out);
    }

    /// A list lacks the holder. Reservations wait for their deadline.
    fn miss(&mut self, holder: &Holder, out: &mut Outbox<'_>) {
        let now = self.now();
        if self.book.get(holder).is_none_or(Entry::is_reserved) {
            return;
        }
        let Some(notes) = self.book.notes_mut(holder) else {
            return;
        };
        let since = *notes.absent_since.get_or_insert(now);
        if now >= since.saturating_add(self.config.kubelet_grace_ms) {
            self.remove(holder, removal::POD_GONE, "the kubelet no longer tells of the pod", out);
        }
    }

    fn put_foreign(&mut self, name: &str, assignments: &[&Assignment], out: &mut Outbox<'_>) {
        let holder = Holder::Foreign(name.to_owned());
        let now = self.now();
        let mut grants: Vec<Grant> = Vec::new();
        let known = self.book.get(&holder).map(|entry| Arc::clone(&entry.claim));
        for assignment in assignments {
            for grant in self.grants_of(assignment, known.as_deref()) {
                if !grants.iter().any(|other| target(other) == target(&grant)) {
                    grants.push(grant);
                }
            }
        }
        let since = match known.as_ref().map(|claim| &claim.state) {
            Some(ClaimState::Foreign { since_unix_ms }) => *since_unix_ms,
            _ => now,
        };
        let claim = Claim {
            holder: holder.clone(),
            pod: None,
            shape: foreign_shape(&grants, assignments),
            grants,
            state: ClaimState::Foreign { since_unix_ms: since },
            granted_unix_ms: since,
            client: "kubelet".to_owned(),
            decision_id: String::new(),
        };
        self.put_if_other(claim, out);
        if let Some(notes) = self.book.notes_mut(&holder) {
            notes.absent_since = None;
        }
    }

    /// What an entry of the kubelet's means for a claim, or for a foreign pod. What the claim holds already it keeps as it is.
    fn grants_of(&self, assignment: &Assignment, claim: Option<&Claim>) -> Vec<Grant> {
        let share = claim.and_then(|claim| match &claim.shape.gpu {
            GpuShape::Share { size, count } if !claim.is_stranger() => Some((*size, *count)),
            _ => None,
        });
        let mut devices = assignment.devices.clone();
        // Replicas of one GPU are one share of it, unless just as many shares were asked for.
        if share.is_none_or(|(_, count)| devices.len() != count as usize) {
            devices.dedup();
        }
        let foreign = claim.is_none_or(|claim| matches!(claim.holder, Holder::Foreign(_)));
        let held = |uuid: &DeviceUuid| claim?.grants.iter().find(|grant| target(grant) == uuid).cloned();
        let size = |uuid: &DeviceUuid| match share {
            Some((size, _)) => self.share_of(uuid, size, claim),
            None if assignment.shared && foreign => GrantSize::Share(Room::default()),
            None => GrantSize::Whole,
        };
        let grant = |uuid: DeviceUuid| {
            if uuid.is_mig() {
                // One that the driver does not tell stands for itself, held whole.
                return self.instance(&uuid).or_else(|| held(&uuid)).unwrap_or(Grant {
                    device: uuid,
                    size: GrantSize::Whole,
                });
            }
            match held(&uuid) {
                Some(kept) if share.is_some() && matches!(kept.size, GrantSize::Share(_)) => kept,
                _ => Grant {
                    size: size(&uuid),
                    device: uuid,
                },
            }
        };
        devices.into_iter().map(grant).collect()
    }

    /// A share's size on this device; while the driver does not tell the device, the size that was planned elsewhere.
    fn share_of(&self, uuid: &DeviceUuid, size: ShareSize, claim: Option<&Claim>) -> GrantSize {
        if let Some(device) = self.node.device(uuid) {
            let (milli, memory) = size.on(device.memory);
            return GrantSize::Share(Room { milli, memory });
        }
        let mut planned = claim
            .into_iter()
            .flat_map(|claim| &claim.grants)
            .map(|grant| &grant.size);
        planned
            .find(|size| matches!(size, GrantSize::Share(_)))
            .cloned()
            .unwrap_or(GrantSize::Whole)
    }

    /// The MIG instance with its GPU, where the driver tells it.
    fn instance(&self, uuid: &DeviceUuid) -> Option<Grant> {
        let missing = self.missing.values();
        self.node.devices.iter().chain(missing).find_map(|device| {
            let slot = device.mig.iter().flatten().find(|slot| slot.uuid == *uuid)?;
            Some(Grant {
                device: device.uuid.clone(),
                size: GrantSize::Mig {
                    instance: uuid.clone(),
                    profile: slot.profile.clone(),
                },
            })
        })
    }
}

/// What the kubelet would call it.
fn target(grant: &Grant) -> &DeviceUuid {
    match &grant.size {
        GrantSize::Mig { instance, .. } => instance,
        GrantSize::Whole | GrantSize::Share(_) => &grant.device,
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

/// The same in another order is no change.
fn same_grants(a: &[Grant], b: &[Grant]) -> bool {
    a.len() == b.len()
        && a.iter().all(|grant| {
            let times = |grants: &[Grant]| grants.iter().filter(|other| *other == grant).count();
            times(a) == times(b)
        })
}

/// What a foreign pod must have asked for.
fn foreign_shape(grants: &[Grant], assignments: &[&Assignment]) -> Shape {
    let count = u32::try_from(grants.len()).unwrap_or(u32::MAX);
    if assignments.iter().any(|assignment| assignment.shared) {
        return Shape::gpu(Claim::shape_of_stranger(count));
    }
    let instances = grants.iter().filter_map(|grant| match &grant.size {
        GrantSize::Mig { profile, .. } => Some(profile),
        GrantSize::Whole | GrantSize::Share(_) => None,
    });
    let profiles: Vec<_> = instances.collect();
    match profiles.first() {
        Some(profile) if profiles.len() == grants.len() => Shape::gpu(GpuShape::Mig {
            profile: (*profile).clone(),
            count,
        }),
        _ => Shape::gpu(GpuShape::Whole { count }),
    }
}
