//! The promises, each as a function of what was before an event, what it did, and what is now.

mod book;
mod changes;

use berth_ledger::{
    Claim, ClaimState, Effect, Event, Holder, LedgerConfig, Record, Reply, RequestRefused, Snapshot, removal,
};
use berth_placement::{GpuShape, NodeVerdict, Plan, Refusal, Shape};

use super::model::{Model, is_reserved};

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
    /// What the ledger would grant now.
    pub(crate) plan: &'a dyn Fn(&Shape) -> Result<Plan, Refusal>,
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
        self.check_released(model)?;
        self.check_kubelet(model)?;
        self.check_waiting()?;
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
