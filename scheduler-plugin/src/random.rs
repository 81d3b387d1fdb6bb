//! Randomness as a dependency: one seed in, decision ids and jitter out.

use std::time::Duration;

use berth_runtime::SharedClock;
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

/// Makes decision ids: UUIDs of version 7, so that they sort by time.
#[derive(Debug)]
pub(crate) struct Ids {
    clock: SharedClock,
    random: Mutex<StdRng>,
}

/// How long to wait before the next attempt: doubling, with jitter, so that schedulers do not return to a daemon all at
/// the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    random: StdRng,
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

impl Ids {
    pub(crate) fn new(clock: SharedClock, seed: u64) -> Self {
        Self {
            clock,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    pub(crate) fn next(&self) -> Uuid {
        let mut bytes = [0; 10];
        self.random.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis(self.clock.now_unix_ms(), &bytes).into_uuid()
    }
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            next: FIRST,
        }
    }

    /// From half the delay to the whole of it.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay.mul_f64(self.random.random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::ManualClock;

    use super::*;

    #[test]
    fn ids_are_version_7_distinct_and_in_the_order_of_time() {
        let clock = ManualClock::at_unix_ms(1_800_000_000_000);
        let ids = Ids::new(clock.shared(), 1);
        let (first, same_ms) = (ids.next(), ids.next());
        clock.advance(Duration::from_millis(1));
        let later = ids.next();
        assert_eq!(first.get_version_num(), 7);
        assert_ne!(first, same_ms);
        assert!(first < later && same_ms < later);
    }

    #[test]
    fn waits_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::new(1);
        let waits: Vec<_> = (0..10).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[9] >= LONGEST / 2 && waits[9] <= LONGEST);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
        let again: Vec<_> = (0..10)
            .map({
                let mut b = Backoff::new(2);
                move |_| b.next()
            })
            .collect();
        assert_ne!(waits, again, "jitter depends on the seed");
    }
}
