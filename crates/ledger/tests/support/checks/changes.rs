//! What an event may do: grant, take, confirm.

use std::collections::BTreeSet;

use berth_ledger::{Claim, ClaimState, Effect, Event, Holder, Record, removal};

use super::{
    super::model::{Model, is_reserved, is_well, name, targets, tells},
    Checked, Turn, check,
};

impl Turn<'_> {
    /// What the ledger grants or plans anew is on devices that may be used.
    pub(super) fn check_grants(&self, model: &Model) -> Checked {
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
                let well = is_well(grant, device) && !model.cordons.contains(&device.uuid);
                check(well, || format!("{claim:?} was granted on {device:?}"))?;
            }
        }
        Ok(())
    }

    /// Nothing is lost without a reason, and who did not ask for it is told, once.
    pub(super) fn check_removals(&self, model: &Model) -> Checked {
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
                    let until = model.silent_until(self.now, self.config.kubelet_grace_ms);
                    matches!(claim.state, ClaimState::Reserved { deadline_unix_ms } if Some(deadline_unix_ms) <= until)
                }
                removal::POD_GONE => {
                    on_list && matches!(claim.state, ClaimState::Allocated { .. }) && self.is_long_silent(model, holder)
                }
                removal::REPLACED => {
                    on_list && self.has_confirmed_namesake(claim) && !self.is_surely_meant(model, claim)
                }
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
            let released = matches!(claim.state, ClaimState::Foreign { released: true, .. });
            check(!silent || released || self.is_long_silent(model, &claim.holder), || {
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

    /// The list tells just this claim, as the one before did, and nobody else can be meant.
    fn is_surely_meant(&self, model: &Model, claim: &Claim) -> bool {
        let told_before = model
            .last_told
            .get(&claim.holder)
            .is_some_and(|at| Some(*at) == model.last_list);
        let exact = model.list.iter().any(|told| tells(told, claim));
        let namesakes = || {
            self.before
                .claims
                .iter()
                .filter(|other| name(other) == name(claim) && other.holder != claim.holder)
        };
        told_before
            && exact
            && namesakes().all(|other| !is_reserved(other) && targets(other).is_disjoint(&targets(claim)))
    }

    /// A foreign claim that the first silence ends is that of a pod which somebody released.
    pub(super) fn check_released(&self, model: &Model) -> Checked {
        for claim in self.after.claims.iter() {
            let released = matches!(claim.state, ClaimState::Foreign { released: true, .. });
            let known = || name(claim).is_some_and(|name| model.released.contains(&name));
            check(!released || known(), || format!("nobody released {claim:?}"))?;
        }
        Ok(())
    }

    /// Whatever the kubelet told last is in the book, under the name that it told, once.
    pub(super) fn check_kubelet(&self, model: &Model) -> Checked {
        for told in &model.list {
            let called = format!("{}/{}", told.namespace, told.name);
            let of_name = || {
                self.after.claims.iter().filter(|claim| {
                    let confirmed = matches!(claim.state, ClaimState::Allocated { .. } | ClaimState::Foreign { .. });
                    confirmed && name(claim).as_ref() == Some(&called)
                })
            };
            let held: BTreeSet<_> = of_name().flat_map(|claim| targets(claim)).collect();
            check(told.devices.iter().all(|device| held.contains(device)), || {
                format!("{told:?} is told, {held:?} is held")
            })?;
            let once = model
                .list
                .iter()
                .all(|other| (&other.namespace, &other.name) != (&told.namespace, &told.name) || other == told);
            let parts = || of_name().filter(|claim| tells(told, claim) && !told.devices.is_empty());
            let foreign = parts().any(|claim| matches!(claim.holder, Holder::Foreign(_)));
            check(!(once && foreign && parts().count() > 1), || {
                format!("{told:?} is told once and held twice")
            })?;
        }
        Ok(())
    }
}
