//! Durations as people write them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

/// A duration on a command line: a whole number above 0 and a unit, e.g. `500ms`, `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration: write a whole number above 0 and a unit, e.g. 500ms, 30s, 5m or 1h")]
pub struct ParseDurationError(String);

impl FromStr for HumanDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
            let unit_ms: u64 = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
            (ms > 0).then(|| Self(Duration::from_millis(ms)))
        };
        parse().ok_or_else(|| ParseDurationError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(text.parse(), Ok(HumanDuration(Duration::from_millis(ms))), "{text}");
        }
        for bad in [
            "",
            "5",
            "m",
            "0s",
            "-1s",
            "1.5h",
            "1 s",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            let error = bad.parse::<HumanDuration>().unwrap_err().to_string();
            assert!(error.contains("e.g. 500ms"), "{error}");
        }
    }
}
