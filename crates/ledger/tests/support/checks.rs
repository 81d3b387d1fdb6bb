//! The promises, each as a function of what was before an event, what it did, and what is now.

use std::collections::BTreeSet;

use berth_ledger::{
    Claim, ClaimState, DriftReason, Effect, Event, Holder, LedgerConfig, Record, Reply, RequestRefused, Snapshot,
    removal,
};
use berth_placement::{ComputeMode, GpuShape, GrantSize, Health, NodeVerdict};

use crate::model::{Model, held, is_reserved, naive_fits, naive_free, name, target, targets};

/// One event, from all sides.
pub(crate) struct Turn<'a> {
    pub(crate) config: &'a LedgerConfig,
    pub(crate) now: u64,
    pub(crate) event: &'a Event,
    pub(crate) before: &'a Snapshot,
    pub(crate) after: &'a Snapshot,
    pub(crate) reply: &'a Result<Reply, RequestRefused>,
    pub(crate) effects: &'a [Effect],
    /// For a request on which nothing had to lapse first: what the ledger said that it would answer.
    pub(crate) explained: Option<NodeVerdict>,
    /// Whether something was due.
    pub(crate) was_due: bool,
}

type Checked = Result<(), String>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

impl Turn<'_> {
    pub(crate) fn check(&self, model: &Model) -> Checked {
        self.check_effects()?;
        self.check_records(model)?;
        self.check_drift()?;
        self.check_devices(model)?;
        self.check_processes(model)?;
        self.check_grants(model)?;
        self.check_removals(model)?;
        self.check_kubelet(model)?;
        self.check_reply(model)
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Persist(record) => Some(record),
            _ => None,
        })
    }

    fn removed(&self) -> Vec<(&Holder, &str)> {
        let removed = self.records().filter_map(|record| match record {
            Record::Removed { holder, reason } => Some((holder, reason.as_str())),
            _ => None,
        });
        removed.collect()
    }

    /// Records, then notices, then "changed" once and only if readers see something else.
    fn check_effects(&self) -> Checked {
        let stage = |effect: &Effect| match effect {
            Effect::Persist(_) => 0,
            Effect::Changed => 2,
            _ => 1,
        };
        check(self.effects.is_sorted_by_key(stage), || {
            format!("out of order: {:?}", self.effects)
        })?;
        let changes = self.effects.iter().filter(|effect| **effect == Effect::Changed).count();
        let (before, after) = (self.before, self.after);
        let same = before.node.devices == after.node.devices
            && before.claims == after.claims
            && before.drifts == after.drifts
            && before.out_of_band == after.out_of_band
            && before.missing == after.missing
            && before.cordons == after.cordons
            && before.reconciled == after.reconciled;
        check(changes == usize::from(!same), || {
            format!("{changes} changes told, the same book: {same}")
        })?;
        check(after.generation() == before.generation() + changes as u64, || {
            "the generation does not follow".to_owned()
        })?;
        let refused = self.reply.is_err() && !self.was_due;
        check(!refused || self.effects.is_empty(), || {
            format!("refused with effects: {:?}", self.effects)
        })
    }

    /// The records and the notices tell all that happened to the book.
    fn check_records(&self, model: &Model) -> Checked {
        let persisted = self
            .after
            .claims
            .iter()
            .filter(|claim| !matches!(claim.holder, Holder::Foreign(_)));
        check(persisted.map(|claim| &**claim).eq(model.claims.values()), || {
            format!(
                "the book {:?} is not what was written: {:?}",
                self.after.claims, model.claims
            )
        })?;
        check(self.after.cordons.keys().eq(&model.cordons), || {
            "cordons are not what was written".to_owned()
        })?;
        let told_anew = self.after.generation() > self.before.generation();
        check(!told_anew || self.after.generation() < model.generation_limit, || {
            "a generation above the limit on disk".to_owned()
        })?;
        let mut drifts = model.drifts.clone();
        drifts.sort_by(|a, b| (a.reason, &a.holder, &a.device).cmp(&(b.reason, &b.holder, &b.device)));
        check(*drifts == *self.after.drifts, || {
            format!("drifts {:?} were told as {drifts:?}", self.after.drifts)
        })
    }

    /// What is told as drift is still so.
    fn check_drift(&self) -> Checked {
        for drift in self.after.drifts.iter() {
            let claim = drift.holder.as_ref().and_then(|holder| self.after.claim(holder));
            let device = drift.device.as_ref();
            let has_it = claim.is_some_and(|claim| claim.grants.iter().any(|grant| Some(&grant.device) == device));
            let present = device.and_then(|uuid| self.after.node.device(uuid));
            let so = match drift.reason {
                DriftReason::AllocationWithoutKubelet => {
                    claim.is_some_and(|claim| matches!(claim.state, ClaimState::Allocated { .. }))
                }
                DriftReason::ProcessWithoutAllocation => {
                    self.after.out_of_band.iter().any(|found| Some(&found.device) == device)
                }
                DriftReason::DeviceMissing => has_it && present.is_none(),
                DriftReason::AssignedUnusable => has_it,
                DriftReason::OverCommitted => present.is_some_and(|device| {
                    held(self.after, &device.uuid).any(|(_, grant)| !naive_fits(self.after, device, grant))
                }),
            };
            check(so, || format!("no longer so: {drift:?}"))?;
        }
        Ok(())
    }

    /// Per device: no more than there is, and what is free is the rest.
    fn check_devices(&self, model: &Model) -> Checked {
        let now = self.after;
        check(
            now.node
                .devices
                .iter()
                .map(|device| &device.uuid)
                .collect::<BTreeSet<_>>()
                == model.devices.keys().collect(),
            || "other devices than the driver's".to_owned(),
        )?;
        check(now.reconciled == model.is_reconciled(), || "reconciled?".to_owned())?;
        for device in &now.node.devices {
            let facts = &model.devices[&device.uuid];
            check((device.health, device.memory) == (facts.health, facts.memory), || {
                format!("stale: {device:?}")
            })?;
            check(device.schedulable != model.cordons.contains(&device.uuid), || {
                format!("cordoned? {device:?}")
            })?;
            let free = naive_free(now, device);
            for (claim, grant) in held(now, &device.uuid).filter(|(claim, _)| now.reconciled && is_reserved(claim)) {
                check(naive_fits(now, device, grant), || {
                    format!("{claim:?} is planned on the full {device:?}")
                })?;
            }
            let told = (u64::from(device.free.milli.get()), device.free.memory.get());
            check(told == if device.mig.is_some() { (0, 0) } else { free }, || {
                format!("{told:?} is told free, {free:?} is")
            })?;
            let on = |uuid| {
                now.out_of_band
                    .iter()
                    .any(|found| found.device == device.uuid && found.mig_instance == uuid)
            };
            let slots = || device.mig.iter().flatten();
            for slot in slots() {
                let whole = |size: &GrantSize| !matches!(size, GrantSize::Mig { .. });
                let taken = held(now, &device.uuid).any(|(_, grant)| whole(&grant.size) || target(grant) == &slot.uuid)
                    || (self.config.count_out_of_band && on(Some(slot.uuid.clone())));
                check(slot.free != taken, || format!("{slot:?}: taken is {taken}"))?;
            }
            let in_a_slot = |uuid: &Option<_>| slots().any(|slot| Some(&slot.uuid) == uuid.as_ref());
            let strange = now
                .out_of_band
                .iter()
                .any(|found| found.device == device.uuid && !in_a_slot(&found.mig_instance));
            check(device.out_of_band == (strange && self.config.count_out_of_band), || {
                format!("stranger? {device:?}")
            })?;
        }
        Ok(())
    }

    /// Every process is somebody's or is told as nobody's.
    fn check_processes(&self, model: &Model) -> Checked {
        let mut expected = BTreeSet::new();
        for process in model.processes.iter().filter(|_| model.is_reconciled()) {
            let holder =
                held(self.after, &process.device).any(|(_, grant)| match (&process.mig_instance, &grant.size) {
                    (Some(instance), GrantSize::Mig { instance: other, .. }) => instance == other,
                    _ => true,
                });
            let of_pod = process
                .pod_uid
                .clone()
                .and_then(|uid| self.after.claim(&Holder::Pod(uid)));
            if !holder && !of_pod.is_some_and(|claim| is_reserved(claim)) {
                expected.insert((&process.device, process.mig_instance.as_ref(), process.pid));
            }
        }
        let told = self
            .after
            .out_of_band
            .iter()
            .map(|found| (&found.device, found.mig_instance.as_ref(), found.pid));
        check(told.eq(expected.iter().copied()), || {
            format!("out of band {:?}, expected {expected:?}", self.after.out_of_band)
        })
    }

    /// What the ledger grants or plans anew is on devices that may be used.
    fn check_grants(&self, model: &Model) -> Checked {
        for record in self.records() {
            let Record::Put(claim) = record else { continue };
            let had = self.before.claim(&claim.holder);
            let planned = is_reserved(claim) || claim.state == ClaimState::Leased;
            if !planned || had.is_some_and(|had| had.grants == claim.grants) {
                continue;
            }
            check(model.is_reconciled(), || {
                format!("granted before anything is known: {claim:?}")
            })?;
            check(claim.grants.len() == claim.shape.gpu.count() as usize, || {
                format!("not what was asked: {claim:?}")
            })?;
            check(targets(claim).len() == claim.grants.len(), || {
                format!("twice the same: {claim:?}")
            })?;
            for grant in &claim.grants {
                let device = model
                    .devices
                    .get(&grant.device)
                    .ok_or_else(|| format!("granted what is gone: {claim:?}"))?;
                let well = matches!(device.health, Health::Healthy | Health::Suspect)
                    && device.compute_mode != ComputeMode::Prohibited
                    && !model.cordons.contains(&device.uuid)
                    && match (&grant.size, &device.mig) {
                        (GrantSize::Mig { instance, .. }, Some(slots)) => {
                            slots.iter().any(|slot| slot.uuid == *instance)
                        }
                        (GrantSize::Mig { .. }, None) | (_, Some(_)) => false,
                        (GrantSize::Share(_), None) => device.compute_mode == ComputeMode::Default,
                        (GrantSize::Whole, None) => true,
                    };
                check(well, || format!("{claim:?} was granted on {device:?}"))?;
            }
        }
        Ok(())
    }

    /// Nothing is lost without a reason, and who did not ask for it is told, once.
    fn check_removals(&self, model: &Model) -> Checked {
        let removed = self.removed();
        let revoked = self.effects.iter().filter_map(|effect| match effect {
            Effect::Revoked { holder, reason, .. } => Some((holder, *reason)),
            _ => None,
        });
        let unasked = removed
            .iter()
            .copied()
            .filter(|(_, reason)| *reason != removal::RELEASED);
        check(revoked.eq(unasked), || {
            format!("removed {removed:?} and told otherwise: {:?}", self.effects)
        })?;
        for (holder, reason) in &removed {
            let claim = self
                .before
                .claim(holder)
                .ok_or_else(|| format!("{holder} was removed and held nothing"))?;
            let on_list = matches!(self.event, Event::Kubelet(_));
            let justified = match *reason {
                removal::RELEASED => matches!(self.event, Event::Release { holder: asked } if asked == *holder),
                removal::LAPSED => {
                    matches!(claim.state, ClaimState::Reserved { deadline_unix_ms } if deadline_unix_ms <= self.now)
                }
                removal::POD_GONE => {
                    on_list && matches!(claim.state, ClaimState::Allocated { .. }) && self.is_long_silent(model, holder)
                }
                removal::REPLACED => on_list && self.has_confirmed_namesake(claim),
                removal::DISPLACED_BY_KUBELET | removal::DEVICE_LOST => is_reserved(claim),
                _ => false,
            };
            check(justified, || format!("{claim:?} was removed as {reason}"))?;
        }
        for claim in self
            .before
            .claims
            .iter()
            .filter(|claim| self.after.claim(&claim.holder).is_none())
        {
            let foreign = matches!(claim.holder, Holder::Foreign(_));
            let known = removed.iter().any(|(holder, _)| **holder == claim.holder);
            check(known != foreign, || format!("{claim:?} vanished"))?;
            let silent = foreign && matches!(self.event, Event::Kubelet(_)) && !self.is_shown(claim);
            check(!silent || self.is_long_silent(model, &claim.holder), || {
                format!("silence freed {claim:?}")
            })?;
        }
        Ok(())
    }

    fn is_long_silent(&self, model: &Model, holder: &Holder) -> bool {
        let last = model.last_told.get(holder).copied().unwrap_or(0);
        self.now >= last.saturating_add(self.config.kubelet_grace_ms)
    }

    fn is_shown(&self, claim: &Claim) -> bool {
        let Event::Kubelet(list) = self.event else { return false };
        list.iter()
            .any(|told| !told.devices.is_empty() && Some(format!("{}/{}", told.namespace, told.name)) == name(claim))
    }

    fn has_confirmed_namesake(&self, claim: &Claim) -> bool {
        let confirmed =
            |other: &&Claim| matches!(other.state, ClaimState::Allocated { .. }) && other.holder != claim.holder;
        self.after
            .claims
            .iter()
            .map(|other| &**other)
            .any(|other| confirmed(&other) && name(other) == name(claim))
    }

    /// Whatever the kubelet tells is in the book, under the name that it tells.
    fn check_kubelet(&self, model: &Model) -> Checked {
        if !matches!(self.event, Event::Kubelet(_)) {
            return Ok(());
        }
        for told in &model.list {
            let called = format!("{}/{}", told.namespace, told.name);
            let of_name = self.after.claims.iter().filter(|claim| {
                let confirmed = matches!(claim.state, ClaimState::Allocated { .. } | ClaimState::Foreign { .. });
                confirmed && name(claim).as_ref() == Some(&called)
            });
            let held: BTreeSet<_> = of_name.flat_map(|claim| targets(claim)).collect();
            check(told.devices.iter().all(|device| held.contains(device)), || {
                format!("{told:?} is told, {held:?} is held")
            })?;
        }
        Ok(())
    }

    /// The answer is the one that was to be expected.
    fn check_reply(&self, model: &Model) -> Checked {
        let (holder, shape, follows_plan) = match self.event {
            Event::Reserve {
                pod, shape, preferred, ..
            } => (Holder::Pod(pod.uid.clone()), shape, preferred.is_empty()),
            Event::Acquire { lease, shape, .. } => (Holder::Lease(lease.clone()), shape, true),
            Event::Release { holder } => {
                let held = self
                    .before
                    .claim(holder)
                    .is_some_and(|_| !matches!(holder, Holder::Foreign(_)));
                let lapsed = self
                    .removed()
                    .iter()
                    .any(|(other, reason)| *other == holder && *reason == removal::LAPSED);
                let expected = Ok(Reply::Released {
                    was_held: held && !lapsed,
                });
                let gone = !held || self.after.claim(holder).is_none();
                return check(*self.reply == expected || (self.was_due && gone), || {
                    format!("{:?}, expected {expected:?}", self.reply)
                });
            }
            _ => return Ok(()),
        };
        if !model.is_reconciled() {
            return check(*self.reply == Err(RequestRefused::NotReconciled), || {
                format!("{:?} before all is known", self.reply)
            });
        }
        if let Ok(Reply::Granted { claim, .. }) = self.reply {
            let kept = self.after.claim(&holder).map(|claim| &**claim);
            check(kept == Some(claim), || {
                format!("{claim:?} was told, {kept:?} is in the book")
            })?;
        }
        let Some(explained) = self.explained.as_ref().filter(|_| shape.gpu != GpuShape::None) else {
            return Ok(());
        };
        match (self.before.claim(&holder), self.reply) {
            (Some(had), Ok(Reply::Granted { claim, existing: true })) => {
                let grants = had.grants == claim.grants || is_reserved(had);
                let earlier = |had: &Claim, has: &Claim| match (&had.state, &has.state) {
                    (
                        ClaimState::Reserved { deadline_unix_ms: had },
                        ClaimState::Reserved { deadline_unix_ms: has },
                    ) => has < had,
                    (had, has) => had != has,
                };
                check(had.shape == *shape && grants && !earlier(had, claim), || {
                    format!("{had:?} became {claim:?}")
                })
            }
            (Some(had), Err(RequestRefused::HolderHasOther { .. })) => {
                check(had.shape != *shape, || "it has the same".to_owned())
            }
            (Some(had), Err(RequestRefused::NoRoom(_))) => check(is_reserved(had), || format!("{had:?} was refused")),
            (None, Ok(Reply::Granted { claim, existing: false })) => {
                let plan = explained
                    .plan
                    .as_ref()
                    .map_err(|no| format!("granted in spite of {no}"))?;
                check(!follows_plan || plan.grants == claim.grants, || {
                    format!("{plan:?} was told, {claim:?} granted")
                })
            }
            (None, Err(RequestRefused::NoRoom(refusal))) => {
                let same = explained.plan.as_ref() == Err(refusal);
                check(same, || {
                    format!("refused for {refusal}, explained as {:?}", explained.plan)
                })
            }
            (had, reply) => Err(format!("{had:?} asked for {shape} and got {reply:?}")),
        }
    }
}
