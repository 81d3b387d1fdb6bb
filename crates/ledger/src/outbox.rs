//! Collects the effects of one event in the order in which the shell must act on them: records, then notices, then
//! at most one "changed".

use crate::{Claim, Effect, Holder, Record, removal};

#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    effects: &'a mut Vec<Effect>,
    notices: Vec<Effect>,
    changed: bool,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(effects: &'a mut Vec<Effect>) -> Self {
        Self {
            effects,
            notices: Vec::new(),
            changed: false,
        }
    }

    pub(crate) fn persist(&mut self, record: Record) {
        self.effects.push(Effect::Persist(record));
    }

    /// A revocation, or the beginning or end of drift.
    pub(crate) fn notice(&mut self, effect: Effect) {
        self.notices.push(effect);
    }

    /// A claim left the book for good. Foreign ones were never written, and their holders asked us for nothing.
    pub(crate) fn tell_removal(&mut self, claim: &Claim, reason: &'static str, message: &str) {
        self.change();
        let holder = claim.holder.clone();
        if matches!(holder, Holder::Foreign(_)) {
            return;
        }
        self.persist(Record::Removed {
            holder: holder.clone(),
            reason: reason.to_owned(),
        });
        if reason != removal::RELEASED {
            self.notice(Effect::Revoked {
                holder,
                pod: claim.pod.clone(),
                reason,
                message: message.to_owned(),
            });
        }
    }

    /// Readers would see another snapshot than before the event.
    pub(crate) fn change(&mut self) {
        self.changed = true;
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    pub(crate) fn finish(mut self) {
        self.effects.append(&mut self.notices);
        if self.changed {
            self.effects.push(Effect::Changed);
        }
    }
}
