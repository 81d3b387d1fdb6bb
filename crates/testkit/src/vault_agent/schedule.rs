//! When the agent does things: pure functions of what the server said.

use std::time::Duration;

use serde_json::Value;

/// The real agent's fraction of a lease that cannot be renewed, after which it fetches again.
const LEASE_FRACTION: f64 = 0.9;

/// From a login's or renewal's `auth` to the next renewal: two thirds of the token's life.
pub(super) fn renew_after(auth: &Value) -> Duration {
    match auth["lease_duration"].as_u64().unwrap_or_default() {
        // A token for ever.
        0 => Duration::from_hours(24 * 365),
        seconds => Duration::from_secs(seconds) * 2 / 3,
    }
}

/// From a secret's answer to the next fetch.
pub(super) fn refetch_after(answer: &Value, static_interval: Duration) -> Duration {
    match answer["lease_duration"].as_u64().unwrap_or_default() {
        0 => static_interval,
        seconds => Duration::from_secs(seconds).mul_f64(LEASE_FRACTION),
    }
}

/// Twice as long after each failure, counted from 1, up to `most`.
pub(super) fn after_failure(failures: u32, least: Duration, most: Duration) -> Duration {
    least
        .saturating_mul(1 << (failures.saturating_sub(1)).min(16))
        .min(most)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_and_leases_are_renewed_before_they_run_out() {
        assert_eq!(renew_after(&json!({"lease_duration": 43200})), Duration::from_hours(8));
        let leased = json!({"lease_duration": 43200});
        assert_eq!(refetch_after(&leased, Duration::from_mins(5)), Duration::from_mins(648));
        let without = json!({"lease_duration": 0});
        assert_eq!(refetch_after(&without, Duration::from_mins(5)), Duration::from_mins(5));
    }

    #[test]
    fn waiting_grows_up_to_its_limit() {
        let (least, most) = (Duration::from_secs(1), Duration::from_mins(5));
        let waits: Vec<u64> = [1, 2, 3, 9, 10, 1000]
            .map(|n| after_failure(n, least, most).as_secs())
            .to_vec();
        assert_eq!(waits, [1, 2, 4, 256, 300, 300]);
    }
}
