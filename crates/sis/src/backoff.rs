//! How long to wait before the next try. Pure: no clock, no randomness of its own.

use std::time::Duration;

/// Waits that double up to a limit, spread so that many clients do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    random: u64,
}

/// How often one call tries by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// At least 1.
    pub attempts: u32,
    pub first: Duration,
    pub most: Duration,
    /// Of all attempts and waits together. A `Retry-After` that goes beyond ends the call with its error.
    pub total: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// `seed`: any number, another one in each process.
    pub const fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self {
            first,
            most,
            next: first,
            random: seed | 1,
        }
    }

    /// The next wait, at least what the other side asked for.
    pub fn after(&mut self, retry_after: Option<Duration>) -> Duration {
        let base = self.next;
        self.next = (self.next * 2).min(self.most);
        // Xorshift (Marsaglia 2003): good enough to spread.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = u32::try_from(self.random % 250).unwrap_or_default();
        let wait = base + base * spread / 1000;
        wait.max(retry_after.unwrap_or_default())
    }

    /// It went well: start from the shortest wait again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// One try.
    pub const ONCE: Self = Self {
        attempts: 1,
        first: Duration::from_secs(1),
        most: Duration::from_secs(1),
        total: Duration::from_mins(1),
    };
    /// For somebody who waits: a few tries within seconds.
    pub const SHORT: Self = Self {
        attempts: 3,
        first: Duration::from_millis(500),
        most: Duration::from_secs(3),
        total: Duration::from_secs(30),
    };
    /// The real agent's: 5 tries, 3 s doubling, at most a minute apart.
    pub const AGENT: Self = Self {
        attempts: 5,
        first: Duration::from_secs(3),
        most: Duration::from_mins(1),
        total: Duration::from_mins(3),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_spread_a_little_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5), 7);
        for (least, most) in [(1000, 1250), (2000, 2500), (4000, 5000), (5000, 6250), (5000, 6250)] {
            let wait = backoff.after(None).as_millis();
            assert!((least..=most).contains(&wait), "{wait}");
        }
        backoff.reset();
        assert!(backoff.after(None) <= Duration::from_millis(1250));
    }

    #[test]
    fn a_wait_that_the_service_asked_for_is_kept() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5), 7);
        assert_eq!(backoff.after(Some(Duration::from_secs(65))), Duration::from_secs(65));
    }
}
