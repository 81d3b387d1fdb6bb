//! When something that is told to SIS is told again: on change, now and then, and after a failure not at once. Pure: the
//! time comes from outside.

use std::time::Duration;

use berth_sis::Backoff;

/// Changes come in bursts (a node joins, a request of many instances): what comes within this is told at once.
const SETTLE: Duration = Duration::from_millis(300);
/// Between two tellings.
const GAP: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// So late may it be told that an outage is over.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// One kind of telling. Times are the monotonic clock's.
#[derive(Debug)]
pub struct Schedule<T> {
    every: Duration,
    told: Option<(Duration, T)>,
    /// Since when something else is wanted than what was told.
    differs_since: Option<Duration>,
    hold: Option<Hold<T>>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Hold<T> {
    until: Duration,
    /// Refused for what it is: another one may go at once. `None`: nobody was there to take it.
    refused: Option<T>,
}

impl<T: PartialEq + Clone> Schedule<T> {
    pub const fn new(every: Duration, seed: u64) -> Self {
        Self {
            every,
            told: None,
            differs_since: None,
            hold: None,
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY, seed),
        }
    }

    /// When to tell `wanted`: now, or at a later time.
    pub fn due(&mut self, now: Duration, wanted: &T) -> Duration {
        let due = match &self.told {
            None => now,
            Some((at, told)) if told == wanted => {
                self.differs_since = None;
                *at + self.every
            }
            Some((at, _)) => (*self.differs_since.get_or_insert(now) + SETTLE).max(*at + GAP),
        };
        let held = self.hold.as_ref();
        let held = held.filter(|hold| hold.refused.as_ref().is_none_or(|refused| refused == wanted));
        due.max(held.map_or(Duration::ZERO, |hold| hold.until))
    }

    pub fn succeeded(&mut self, now: Duration, told: T) {
        self.told = Some((now, told));
        self.differs_since = None;
        self.hold = None;
        self.backoff.reset();
    }

    /// `transient`: the same may succeed later.
    pub fn failed(&mut self, now: Duration, wanted: &T, transient: bool, retry_after: Option<Duration>) {
        self.hold = Some(Hold {
            until: now + self.backoff.after(retry_after),
            refused: (!transient).then(|| wanted.clone()),
        });
    }

    /// Something changed that may help (a token, the configuration).
    pub fn nudge(&mut self) {
        self.hold = None;
        self.backoff.reset();
    }

    /// Tell it again whatever was told: it is another one that listens.
    pub fn forget(&mut self) {
        self.told = None;
        self.nudge();
    }

    pub const fn was_told(&self) -> bool {
        self.told.is_some()
    }

    /// What was told last, as long as nobody forgot it.
    pub fn is_refresh(&self, wanted: &T) -> bool {
        self.told.as_ref().is_some_and(|(_, told)| told == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_goes_at_once_and_the_same_again_after_its_time() {
        let mut schedule = Schedule::new(HOUR, 1);
        assert_eq!(schedule.due(at(5), &"a"), at(5));
        schedule.succeeded(at(10), "a");
        assert_eq!(schedule.due(at(20), &"a"), at(10) + HOUR);
        assert!(schedule.is_refresh(&"a") && !schedule.is_refresh(&"b"));
    }

    #[test]
    fn a_burst_of_changes_is_one_telling_within_a_second() {
        let mut schedule = Schedule::new(HOUR, 1);
        schedule.succeeded(at(0), "a");
        assert_eq!(schedule.due(at(5_000), &"b"), at(5_300));
        assert_eq!(schedule.due(at(5_100), &"c"), at(5_300), "the first change counts");
        schedule.succeeded(at(5_300), "c");
        assert_eq!(schedule.due(at(5_400), &"d"), at(6_300), "not twice in a second");
        assert_eq!(schedule.due(at(5_500), &"c"), at(5_300) + HOUR, "it changed back");
    }

    #[test]
    fn after_an_outage_everything_waits_and_after_a_refusal_only_the_same() {
        let mut schedule = Schedule::new(HOUR, 1);
        schedule.failed(at(0), &"a", true, None);
        assert!(schedule.due(at(1), &"a") >= at(1_000) && schedule.due(at(1), &"b") >= at(1_000));
        schedule.failed(at(0), &"a", true, Some(Duration::from_secs(65)));
        assert_eq!(schedule.due(at(1), &"b"), at(65_000), "as long as SIS asked for");
        schedule.failed(at(0), &"a", false, None);
        assert!(schedule.due(at(1), &"a") >= at(1_000));
        assert_eq!(schedule.due(at(1), &"b"), at(1));
        schedule.nudge();
        assert_eq!(schedule.due(at(2), &"a"), at(2));
    }
}
