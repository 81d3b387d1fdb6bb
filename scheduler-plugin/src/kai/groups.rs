//! The groups by which KAI accounts what Berth bound: which of them are not as they were made, and when that is to be put
//! right. Pure; whoever changes one again and again is answered less and less often.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use tokio::time::Instant;

/// From a repair to the next one of the same group; doubled with each, up to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_mins(5);
/// What stood for so long is put right at once again.
const CALM: Duration = Duration::from_mins(10);

/// Namespace and name.
pub(super) type GroupKey = (String, String);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Those that are as they were made, by what was seen last.
    sound: HashSet<GroupKey>,
    /// Those that are not, and that a pod is in.
    wrong: BTreeSet<GroupKey>,
    paces: BTreeMap<GroupKey, Pace>,
}

#[derive(Debug)]
struct Pace {
    repairs: u32,
    not_before: Instant,
}

impl Groups {
    /// As it is now; not `sound` if it is gone, too.
    pub(super) fn seen(&mut self, key: GroupKey, is_sound: bool) {
        if is_sound {
            self.wrong.remove(&key);
            self.sound.insert(key);
        } else {
            self.sound.remove(&key);
        }
    }

    /// A pod is in it.
    pub(super) fn needed(&mut self, key: GroupKey) {
        if !self.sound.contains(&key) {
            self.wrong.insert(key);
        }
    }

    /// No pod is in it any more.
    pub(super) fn not_needed(&mut self, key: &GroupKey) {
        self.wrong.remove(key);
    }

    /// What is to be put right now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<GroupKey> {
        self.paces.retain(|_, pace| now < pace.not_before + CALM);
        let mut due = Vec::new();
        for key in &self.wrong {
            let pace = self.paces.entry(key.clone()).or_insert(Pace {
                repairs: 0,
                not_before: now,
            });
            if now < pace.not_before {
                continue;
            }
            let wait = FIRST_WAIT * 2_u32.saturating_pow(pace.repairs.min(16));
            pace.repairs += 1;
            pace.not_before = now + wait.min(LAST_WAIT);
            due.push(key.clone());
        }
        due
    }

    pub(super) fn known(&self) -> HashSet<GroupKey> {
        self.sound.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> GroupKey {
        ("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn what_is_not_as_it_was_made_is_put_right_where_a_pod_is_in_it_and_until_it_is_seen_so() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        groups.seen(key("a"), true);
        groups.needed(key("a"));
        groups.needed(key("b"));
        assert_eq!(groups.due(now), [key("b")], "never seen");
        groups.seen(key("b"), true);
        groups.seen(key("a"), false);
        assert_eq!(groups.due(now + FIRST_WAIT), [], "nobody needs it");
        groups.needed(key("a"));
        assert_eq!(groups.due(now + FIRST_WAIT), [key("a")]);
        groups.not_needed(&key("a"));
        assert_eq!(groups.due(now + LAST_WAIT), []);
        assert_eq!(groups.known(), [key("b")].into());
    }

    #[test]
    fn whoever_changes_a_group_again_and_again_is_answered_less_and_less_often() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let mut repairs = Vec::new();
        for second in 0..3600 {
            // Put right with each repair, and changed at once.
            groups.seen(key("a"), true);
            groups.seen(key("a"), false);
            groups.needed(key("a"));
            if !groups.due(start + Duration::from_secs(second)).is_empty() {
                repairs.push(second);
            }
        }
        assert_eq!(repairs[..6], [0, 1, 3, 7, 15, 31]);
        assert!(repairs.len() < 22, "{repairs:?}");
        groups.seen(key("a"), true);
        let later = start + Duration::from_hours(1) + LAST_WAIT + CALM;
        assert_eq!(groups.due(later), []);
        groups.seen(key("a"), false);
        groups.needed(key("a"));
        assert_eq!(groups.due(later), [key("a")]);
        assert_eq!(groups.due(later + FIRST_WAIT), [key("a")], "it begins anew");
    }
}
