//! Where the monitor gets the time from: two closures, so that this crate needs no clock of its own.

use std::{fmt, sync::Arc, time::Duration};

use crate::health::Moment;

/// A wall clock and a monotonic one.
#[derive(Clone)]
pub struct MonitorClock {
    /// Milliseconds since 1970-01-01 UTC: for people.
    pub unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Time since an arbitrary start, never going back: for cadences and dwell times.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl MonitorClock {
    pub fn new(
        unix_ms: impl Fn() -> u64 + Send + Sync + 'static,
        monotonic: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self {
            unix_ms: Arc::new(unix_ms),
            monotonic: Arc::new(monotonic),
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment {
            unix_ms: (self.unix_ms)(),
            monotonic: (self.monotonic)(),
        }
    }
}

impl fmt::Debug for MonitorClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MonitorClock")
    }
}
