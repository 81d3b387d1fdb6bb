//! `ICMSRequest`s that are removed, for as long as the watch may still tell of them: what it tells is older than their end, and
//! must not make them wishes again. Pure.

use std::collections::HashMap;

/// The ids of the objects, by name. A new object may have the name of one that is gone.
#[derive(Debug, Default)]
pub(super) struct Removed(HashMap<String, String>);

impl Removed {
    pub(super) fn add(&mut self, name: String, uid: String) {
        self.0.insert(name, uid);
    }

    /// Whether this object is one that is gone by now. Where another one has its name, the watch has caught up.
    pub(super) fn has(&mut self, name: &str, uid: Option<&str>) -> bool {
        let is_it = self.0.get(name).is_some_and(|gone| uid == Some(gone));
        if !is_it {
            self.0.remove(name);
        }
        is_it
    }

    /// The watch told that the name's object is gone; true where that is no news.
    pub(super) fn told(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_watch_tells_late_of_a_removed_request_is_old_and_another_of_its_name_is_new() {
        let mut removed = Removed::default();
        assert!(!removed.has("sr-a", Some("1")));
        removed.add("sr-a".to_owned(), "1".to_owned());
        assert!(removed.has("sr-a", Some("1")));
        assert!(!removed.has("sr-b", Some("1")));
        assert!(removed.told("sr-a"), "its end is our own doing");
        assert!(!removed.told("sr-a"), "somebody deleted the next one");

        removed.add("sr-a".to_owned(), "1".to_owned());
        assert!(!removed.has("sr-a", Some("2")));
        assert!(!removed.told("sr-a"), "somebody deleted the second one");
    }
}
