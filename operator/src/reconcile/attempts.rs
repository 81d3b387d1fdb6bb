//! What was tried for each object: when it is tried again, why it failed, and in which form the API server keeps it.
//!
//! Owns the patience with an object that cannot be applied, or that somebody else changes as often. Pure: the time is passed in.

use std::{collections::BTreeMap, time::Duration};

use berth_runtime::{kubernetes::ApiError, telemetry::with_causes};
use serde_json::Value;

use super::{
    live::Live,
    object::{Key, holds},
};

/// After a failure, and for an object that somebody else keeps changing; doubled up to the last.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LAST_WAIT: Duration = Duration::from_secs(30);
/// While the API server is away: so late may an object be applied after an outage.
const LAST_WAIT_OF_OUTAGE: Duration = Duration::from_secs(10);

/// By object.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<Key, Attempt>);

#[derive(Debug, Clone, PartialEq)]
struct Attempt {
    wanted: Value,
    at: Duration,
    wait: Duration,
    /// What the API server made of it: it writes some values in another form.
    made: Option<Value>,
    failure: Option<Failure>,
}

/// Why an object is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) object: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The same may succeed later.
    is_transient: bool,
}

/// The longest wait after a failure.
pub(super) const fn last_wait(is_transient: bool) -> Duration {
    if is_transient { LAST_WAIT_OF_OUTAGE } else { LAST_WAIT }
}

impl Attempts {
    /// How long the object is to be left alone yet, and why it was not applied then. `None`: it is tried now.
    pub(super) fn rest(&mut self, key: &Key, wanted: &Value, now: Duration) -> Option<(Duration, Option<Failure>)> {
        let Some(attempt) = self.0.get_mut(key).filter(|it| it.wanted == *wanted) else {
            let attempt = Attempt {
                wanted: wanted.clone(),
                at: now,
                wait: FIRST_WAIT,
                made: None,
                failure: None,
            };
            self.0.insert(key.clone(), attempt);
            return None;
        };
        let since = now.saturating_sub(attempt.at);
        if since < attempt.wait {
            return Some((attempt.wait.saturating_sub(since), attempt.failure.clone()));
        }
        // Quiet for long: somebody did it once more, not all the time.
        attempt.wait = if since > LAST_WAIT * 2 {
            FIRST_WAIT
        } else {
            let is_transient = attempt.failure.as_ref().is_some_and(|it| it.is_transient);
            (attempt.wait * 2).min(last_wait(is_transient))
        };
        attempt.at = now;
        None
    }

    /// What came of the attempt that [`Self::rest`] let through.
    pub(super) fn came_of(&mut self, key: &Key, made: Option<Value>, failure: Option<Failure>) {
        if let Some(attempt) = self.0.get_mut(key) {
            attempt.made = made;
            attempt.failure = failure;
        }
    }

    /// It is there as the API server wrote it, in another form: `1000m` is `1`.
    pub(super) fn is_settled(&self, key: &Key, wanted: &Value, live: &Live) -> bool {
        let attempt = self.0.get(key).filter(|it| it.wanted == *wanted);
        let made = attempt.and_then(|it| it.made.as_ref());
        made.zip(live.objects.get(key))
            .is_some_and(|(made, live)| holds(made, live))
    }

    /// What is as it should be for long needs no patience any more.
    pub(super) fn forget(&mut self, wanted: &[(Key, Value)], now: Duration) {
        let is_wanted = |key: &Key| wanted.iter().any(|(it, _)| it == key);
        self.0
            .retain(|key, attempt| is_wanted(key) || now.saturating_sub(attempt.at) < LAST_WAIT);
    }
}

impl Failure {
    pub(super) fn of(key: &Key, error: &ApiError) -> Self {
        Self {
            object: key.to_string(),
            reason: error.reason(),
            message: with_causes(error),
            is_transient: error.is_transient(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> (Key, Value) {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "cpu": "1000m"});
        (Key::of(&object).unwrap(), object)
    }

    /// When an object is tried within ten minutes, each time with this failure.
    fn tries(error: &ApiError) -> Vec<Duration> {
        let (key, object) = service();
        let mut attempts = Attempts::default();
        let failure = Failure::of(&key, error);
        let (mut now, mut tries) = (Duration::ZERO, Vec::new());
        while now < Duration::from_mins(10) {
            match attempts.rest(&key, &object, now) {
                None => {
                    tries.push(now);
                    attempts.came_of(&key, None, Some(failure.clone()));
                }
                Some((rest, told)) => {
                    assert_eq!(told.as_ref(), Some(&failure));
                    // As the loop does: a moment later than it asked for.
                    now += rest + Duration::from_millis(20);
                }
            }
        }
        assert_eq!(
            attempts.rest(&key, &json!({}), now),
            None,
            "another wish is tried at once"
        );
        tries
    }

    #[test]
    fn an_object_that_cannot_be_applied_is_tried_less_and_less_and_the_reason_stays_told() {
        let refused = json!({"status": "Failure", "code": 422, "reason": "Invalid", "message": "no"});
        let refused = ApiError::Refused(serde_json::from_value(refused).unwrap());
        let tries = tries(&refused);
        assert!((20..30).contains(&tries.len()), "{tries:?}");
    }

    #[test]
    fn an_object_is_applied_ten_seconds_after_an_outage_at_the_latest() {
        let tries = tries(&ApiError::Deadline(FIRST_WAIT));
        let longest = tries.windows(2).map(|it| it[1].saturating_sub(it[0])).max().unwrap();
        assert!(longest < Duration::from_secs(11), "{tries:?}");
        assert!(tries.len() < 70, "{tries:?}");
    }

    #[test]
    fn what_the_api_server_keeps_in_another_form_is_no_drift_until_somebody_changes_it() {
        let (key, object) = service();
        let mut attempts = Attempts::default();
        let mut live = Live::default();
        let mut kept = object.clone();
        kept["cpu"] = json!("1");
        live.objects.insert(key.clone(), kept.clone());
        assert!(!attempts.is_settled(&key, &object, &live), "nobody applied it yet");
        assert_eq!(attempts.rest(&key, &object, Duration::ZERO), None);
        attempts.came_of(&key, Some(kept.clone()), None);
        assert!(attempts.is_settled(&key, &object, &live));
        kept["cpu"] = json!("2");
        live.objects.insert(key.clone(), kept);
        assert!(!attempts.is_settled(&key, &object, &live));
    }
}
