//! Which nodes changed since when: what makes a decision cost the changes and not the cluster.

/// Positions grow by one with every change; old entries are forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangeLog {
    slots: Vec<u32>,
    /// Position of the first entry that is still known.
    first: u64,
    /// By slot, the position of its last change: an earlier entry for it need not be looked at.
    latest: Vec<u64>,
}

/// Entries are kept for this many changes per node, and at least for [`KEEP_LEAST`].
const KEEP_PER_NODE: usize = 4;
const KEEP_LEAST: usize = 4096;

impl ChangeLog {
    /// The position of the next change.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(crate) fn push(&mut self, slot: u32) {
        let at = slot as usize;
        if self.latest.len() <= at {
            self.latest.resize(at + 1, 0);
        }
        self.latest[at] = self.end();
        self.slots.push(slot);
        let keep = (self.latest.len() * KEEP_PER_NODE).max(KEEP_LEAST);
        if self.slots.len() > 2 * keep {
            let drop = self.slots.len() - keep;
            self.slots.drain(..drop);
            self.first += drop as u64;
        }
    }

    /// The nodes that changed at `position` or later, each once; `None` where that is no longer known or looking at
    /// every node is cheaper.
    pub(crate) fn since(&self, position: u64) -> Option<impl Iterator<Item = u32> + '_> {
        let skip = usize::try_from(position.checked_sub(self.first)?).ok()?;
        let changed = self.slots.get(skip..)?;
        if changed.len() > 2 * self.latest.len() {
            return None;
        }
        let entries = changed.iter().zip(position..);
        Some(entries.filter_map(|(&slot, at)| (self.latest[slot as usize] == at).then_some(slot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_changed_twice_is_told_once() {
        let mut log = ChangeLog::default();
        for slot in [0, 1, 2, 3] {
            log.push(slot);
        }
        let start = log.end();
        for slot in [3, 1, 3] {
            log.push(slot);
        }
        assert_eq!(log.since(start).unwrap().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(log.since(log.end()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_forgotten_is_not_told_in_part() {
        let mut log = ChangeLog::default();
        for _ in 0..=2 * KEEP_LEAST {
            log.push(7);
        }
        assert!(log.since(0).is_none());
        let recent = log.end() - 3;
        assert_eq!(log.since(recent).unwrap().collect::<Vec<_>>(), [7]);
    }
}
