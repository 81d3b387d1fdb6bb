//! Wishes without room, which their stream sends again every few seconds: each is told once. Pure; the time is passed in.

use std::{collections::HashMap, time::Duration};

/// What did not come again for so long waits here no more.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// When each came last, by name.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<String, Duration>);

impl Waiting {
    /// It came and has to wait; true where that is news.
    pub(super) fn waits(&mut self, name: &str, now: Duration) -> bool {
        self.0.retain(|_, last| now.saturating_sub(*last) < FORGOTTEN);
        self.0.insert(name.to_owned(), now).is_none()
    }

    /// There was room.
    pub(super) fn taken(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_waits_is_told_once_and_again_when_it_was_away_or_taken() {
        let mut waiting = Waiting::default();
        let at = Duration::from_secs;
        let told: Vec<u64> = (0..600)
            .step_by(3)
            .filter(|second| waiting.waits("a", at(*second)))
            .collect();
        assert_eq!(told, [0]);
        assert!(waiting.waits("b", at(600)), "another one");
        waiting.taken("a");
        assert!(waiting.waits("a", at(601)));
        assert!(waiting.waits("b", at(1300)), "it was away");
        assert_eq!(waiting.0.len(), 1, "nothing is kept of what does not come again");
    }
}
