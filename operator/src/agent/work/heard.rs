//! Up to when messages that nobody settled have come again by now, where their stream has them still. Pure: its times are those
//! of the monotonic clock, and the time is passed in.

use std::time::Duration;

use super::queue::COMES_AGAIN;

/// A stream that was not heard for so long without a break may be gone for good: then a request that is over waits for no
/// message any more.
const GIVEN_UP: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Messages come as soon as they are there.
    since: Option<Duration>,
}

impl Heard {
    /// Whether messages come now. `anew`: there may have been a break meanwhile.
    pub(super) fn now(&mut self, hears: bool, anew: bool, now: Duration) {
        if !hears {
            self.since = None;
        } else if anew {
            self.since = Some(now);
        }
    }

    /// What came before then comes no more.
    pub(super) fn before(&self, now: Duration) -> Option<Duration> {
        let again = now.checked_sub(COMES_AGAIN);
        let again = again.filter(|before| self.since.is_some_and(|since| since <= *before));
        again.max(now.checked_sub(GIVEN_UP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_come_again_after_a_while_without_a_break_and_are_given_up_after_an_hour_in_any_case() {
        let at = Duration::from_secs;
        let mut heard = Heard::default();
        assert_eq!(heard.before(at(3599)), None, "nothing was heard");
        heard.now(true, true, at(100));
        heard.now(true, false, at(200));
        assert_eq!(heard.before(at(99) + COMES_AGAIN), None);
        assert_eq!(heard.before(at(100) + COMES_AGAIN), Some(at(100)));
        heard.now(true, true, at(900));
        assert_eq!(heard.before(at(901)), None, "there was a break");
        heard.now(false, true, at(1000));
        assert_eq!(heard.before(at(3000)), None);
        assert_eq!(heard.before(at(3700)), Some(at(100)), "an hour is enough");
        heard.now(true, true, at(3700));
        assert_eq!(heard.before(at(3700) + COMES_AGAIN), Some(at(3700)));
    }
}
