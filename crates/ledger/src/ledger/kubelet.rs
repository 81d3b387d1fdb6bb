//! What the kubelet assigned: it confirms reservations, moves them, and ends allocations.
//!
//! - **Its choice wins.** A pod that holds a claim becomes Allocated on the devices that the kubelet tells, whatever was
//!   planned. A share keeps its size even where the kubelet tells a whole GPU or replicas of it; a pod that holds a share
//!   and to which the kubelet gave no device (the share is not the kubelet's to give) keeps its plan.
//! - **Nothing is freed by silence.** A kubelet that restarts tells nothing for a while. An allocation (a foreign pod's
//!   too) ends when lists have lacked it for the grace, and only on a list: while the kubelet does not answer, nothing ends.
//!   Only of a pod that was released (so its owner saw it gone) the first list that lacks it is believed.
//! - **Pods nobody reserved for** are foreign claims. They are not persisted: the kubelet tells them again.
//! - **The kubelet knows names, not UIDs.** Of several claims with one name (a pod was re-created) an entry goes to the
//!   newest one, except that an entry which tells just what an older one holds stays with that one for a grace: the
//!   kubelet may not have started the newer pod yet. When the newer one is confirmed and the kubelet shows no other entry
//!   of that name, the older one is gone.

mod assigned;
mod pairing;

use std::{collections::BTreeMap, sync::Arc};

use berth_placement::Grant;

use self::assigned::{foreign_shape, same_grants, target};
use super::{Ledger, removal};
use crate::{Assignment, Claim, ClaimState, Holder, book::Entry, outbox::Outbox};

/// What the kubelet said last.
#[derive(Debug)]
pub(super) enum Kubelet {
    Unknown,
    /// There is none, or none that we may ask.
    Absent,
    Told(Told),
}

/// Its last list.
#[derive(Debug)]
pub(super) struct Told {
    /// By `namespace/name`.
    list: Arc<BTreeMap<String, Vec<Assignment>>>,
    /// When it came.
    at_ms: u64,
    /// Since when lists came without a gap longer than the grace.
    since_ms: u64,
}

/// Whether the kubelet was asked just now, or its last list is looked at again because a claim was released.
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

impl Kubelet {
    /// Reservations with a deadline up to this lapse: the kubelet has had its chance to confirm them. Not in its first
    /// lists after a start or an outage, when it has yet to admit its pods.
    pub(super) fn silent_until(&self, now_ms: u64, grace_ms: u64) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Absent => Some(now_ms),
            Self::Told(told) => (told.at_ms >= told.since_ms.saturating_add(grace_ms)).then_some(told.at_ms),
        }
    }

    /// As in [`Ledger::set_clock`].
    pub(super) fn set_clock(&mut self, now_ms: u64) {
        if let Self::Told(told) = self {
            told.at_ms = told.at_ms.min(now_ms);
            told.since_ms = told.since_ms.min(now_ms);
        }
    }
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
        let at_ms = self.now();
        let since_ms = match &self.kubelet {
            Kubelet::Told(last) if at_ms <= last.at_ms.saturating_add(self.config.kubelet_grace_ms) => last.since_ms,
            _ => at_ms,
        };
        let list = Arc::new(told);
        self.hear_kubelet(Kubelet::Told(Told { list, at_ms, since_ms }), out);
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
    pub(in crate::ledger) fn match_assignments(&mut self, evidence: Evidence, out: &mut Outbox<'_>) {
        let Kubelet::Told(told) = &self.kubelet else { return };
        let told = Arc::clone(&told.list);
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
                self.remove(foreign, removal::REPLACED, "", out);
            }
            Some(foreign) if evidence == Evidence::Fresh => self.miss(foreign, out),
            _ => {}
        }
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

    /// A list lacks the holder. Reservations wait for their deadline; a pod that was released waits for nothing.
    fn miss(&mut self, holder: &Holder, out: &mut Outbox<'_>) {
        let now = self.now();
        if self.book.get(holder).is_none_or(Entry::is_reserved) {
            return;
        }
        let was_released = self
            .book
            .get(holder)
            .is_some_and(|entry| matches!(entry.claim.state, ClaimState::Foreign { released: true, .. }));
        let Some(notes) = self.book.notes_mut(holder) else {
            return;
        };
        let since = *notes.absent_since.get_or_insert(now);
        if was_released || now >= since.saturating_add(self.config.kubelet_grace_ms) {
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
        let (since, released) = match known.as_ref().map(|claim| (&claim.state, &claim.grants)) {
            // On other devices it is another pod of that name.
            Some((
                ClaimState::Foreign {
                    since_unix_ms,
                    released,
                },
                before,
            )) => (*since_unix_ms, *released && same_grants(&grants, before)),
            _ => (now, false),
        };
        let claim = Claim {
            holder: holder.clone(),
            pod: None,
            shape: foreign_shape(&grants, assignments),
            grants,
            state: ClaimState::Foreign {
                since_unix_ms: since,
                released,
            },
            granted_unix_ms: since,
            client: "kubelet".to_owned(),
            decision_id: String::new(),
        };
        self.put_if_other(claim, out);
        if let Some(notes) = self.book.notes_mut(&holder) {
            notes.absent_since = None;
        }
    }
}
