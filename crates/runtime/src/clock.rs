//! Time as a dependency. This file holds the only calls to the system's clocks; everything else takes a [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where a program gets the time from: the system, or a test.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall clock, milliseconds since 1970-01-01 UTC. May jump; for people and for the wire.
    fn now_unix_ms(&self) -> u64;

    /// Time since an arbitrary start. Never goes back; for deadlines and durations.
    fn monotonic(&self) -> Duration;
}

/// The clock as it is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

/// A clock that moves only when it is told to. Clones share one time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<ManualTime>>,
}

#[derive(Debug, Clone, Copy)]
struct ManualTime {
    unix_ms: u64,
    monotonic: Duration,
}

// === impl SystemClock ===

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's monotonic clock"
    )]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The system clock, ready to be passed around.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's wall clock"
    )]
    fn now_unix_ms(&self) -> u64 {
        // A machine whose clock stands before 1970 gets 1970: no caller can do better.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that shows `unix_ms` and has run for no time.
    pub fn at_unix_ms(unix_ms: u64) -> Self {
        Self {
            time: Arc::new(Mutex::new(ManualTime {
                unix_ms,
                monotonic: Duration::ZERO,
            })),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.monotonic += by;
        time.unix_ms = time
            .unix_ms
            .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    /// Makes the wall clock jump, as NTP or an operator does; the monotonic clock does not notice.
    pub fn jump_to_unix_ms(&self, unix_ms: u64) {
        self.time.lock().unix_ms = unix_ms;
    }

    /// This clock, ready to be passed around; the handle in the test stays in control.
    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }
}

impl Clock for ManualClock {
    fn now_unix_ms(&self) -> u64 {
        self.time.lock().unix_ms
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::at_unix_ms(1_000);
        let shared = clock.shared();
        assert_eq!((shared.now_unix_ms(), shared.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_millis(250));
        assert_eq!(
            (shared.now_unix_ms(), shared.monotonic()),
            (1_250, Duration::from_millis(250))
        );
    }

    #[test]
    fn a_wall_clock_jump_leaves_the_monotonic_clock_alone() {
        let clock = ManualClock::at_unix_ms(5_000);
        clock.advance(Duration::from_secs(1));
        clock.jump_to_unix_ms(10);
        assert_eq!((clock.now_unix_ms(), clock.monotonic()), (10, Duration::from_secs(1)));
    }

    #[test]
    fn system_clock_is_after_2024_and_never_goes_back() {
        let clock = SystemClock::new();
        assert!(clock.now_unix_ms() > 1_704_067_200_000);
        let earlier = clock.monotonic();
        assert!(clock.monotonic() >= earlier);
    }
}
