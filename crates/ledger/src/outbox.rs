//! Collects the effects of one event in the order in which the shell must act on them: records, then notices, then
//! at most one "changed".

use crate::{Effect, Record};

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
