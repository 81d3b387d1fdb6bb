//! How long workloads may take, as the real agent's configuration names it; what is missing or 0 is the real agent's default.

use std::{fmt, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Keys of `workload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Times {
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pod_scheduled_threshold: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    max_image_pull_error_threshold: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pod_launch_threshold_seconds_on_failed_restarts: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pod_launch_threshold_minutes_on_init_failure: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    worker_startup_timeout: GoDuration,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    worker_degradation_timeout: GoDuration,
}

impl Times {
    /// Without a node.
    pub fn pod_scheduled(&self) -> Duration {
        self.pod_scheduled_threshold.or(Duration::from_mins(10))
    }

    pub fn image_pull(&self) -> Duration {
        self.max_image_pull_error_threshold.or(Duration::from_mins(1))
    }

    /// From its start, for one that restarts and restarts.
    pub fn restarts(&self) -> Duration {
        let said = self.pod_launch_threshold_seconds_on_failed_restarts;
        said.or(Duration::from_mins(10))
    }

    /// From its start, for its init containers.
    pub fn init(&self) -> Duration {
        let said = self.pod_launch_threshold_minutes_on_init_failure;
        said.or(Duration::from_hours(2))
    }

    /// From its start until it is ready.
    pub fn worker_startup(&self) -> Duration {
        self.worker_startup_timeout.or(Duration::from_hours(2))
    }

    /// Not ready any more.
    pub fn worker_degradation(&self) -> Duration {
        self.worker_degradation_timeout.or(Duration::from_mins(30))
    }
}

/// As Go writes durations (`1h30m0s`); a number is nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    const fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    const fn or(self, default: Duration) -> Duration {
        if self.is_zero() { default } else { self.0 }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        let last = self.0.saturating_sub(Duration::from_secs(seconds - seconds % 60));
        write!(f, "{}s", last.as_secs_f64())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Nanoseconds(u64),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Nanoseconds(nanoseconds) => return Ok(Self(Duration::from_nanos(nanoseconds))),
            Form::Text(text) => text,
        };
        let read = text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|it| Duration::try_from(it).ok());
        let wrong = || de::Error::custom(format_args!("`{text}` is no duration: write e.g. 90s, 10m or 1h30m"));
        read.map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, seconds) in [
            ("2h0m0s", 7200),
            ("30m0s", 1800),
            ("1m30s", 90),
            ("0s", 0),
            ("10h5m1s", 36_301),
        ] {
            let read: GoDuration = from_value(json!(text)).unwrap();
            assert_eq!(read.0, Duration::from_secs(seconds), "{text}");
            assert_eq!(to_value(read).unwrap(), text);
        }
        for (text, ms) in [("90m", 5_400_000), ("1.5h", 5_400_000), ("500ms", 500)] {
            let read: GoDuration = from_value(json!(text)).unwrap();
            assert_eq!(read.0, Duration::from_millis(ms), "{text}");
        }
        assert_eq!(to_value(GoDuration(Duration::from_millis(61_500))).unwrap(), "1m1.5s");
        let read: GoDuration = from_value(json!(60_000_000_000_u64)).unwrap();
        assert_eq!(read.0, Duration::from_mins(1));
        for bad in [json!("soon"), json!("-1h"), json!(""), json!([])] {
            assert!(from_value::<GoDuration>(bad.clone()).is_err(), "{bad}");
        }
    }
}
