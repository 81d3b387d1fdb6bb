//! The one place that reads the real clock and sleeps: a driver lives in real time, nothing else here may.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often a blocked call looks at the state file. Bounds the delay from an edit to its effect.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// A point in time that a blocked call must not outlive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        Self(now() + time)
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }
}

pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Microseconds since 1970, as NVML stamps its samples.
pub(crate) fn unix_micros() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "NVML stamps samples with the wall clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "timeouts of NVML calls are in real time")]
    Instant::now()
}
