//! Durations and instants as the API writes them: `3600`, `"3600"`, `"1h30m"`; RFC 3339.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::Refusal;

/// A request's field that holds a duration; seconds where no unit is given. `None`: not given.
pub(super) fn field(value: Option<&Value>, name: &str) -> Result<Option<Duration>, Refusal> {
    let bad = || Refusal::bad(format!("error converting input for field {name:?}: not a duration"));
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number.as_u64().map(Duration::from_secs).map(Some).ok_or_else(bad),
        Some(Value::String(text)) => parse(text).map(Some).ok_or_else(bad),
        Some(_) => Err(bad()),
    }
}

/// `"90"`, `"1h30m"`, `"1.5s"`, `"250ms"`, `"2d"`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return Some(Duration::ZERO);
    }
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        rest = &rest[letters..];
        total += Duration::try_from_secs_f64(number * unit).ok()?;
    }
    Some(total)
}

/// As Go prints one: `12h0m0s`.
pub(super) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Unix milliseconds as RFC 3339.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// For adding to unix milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_come_with_and_without_unit() {
        for (text, seconds) in [
            ("90", 90.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            ("250ms", 0.25),
            ("2d", 172_800.0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["x", "1y", "h", "-1", "1h-5m"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(field(Some(&json!(7)), "ttl"), Ok(Some(Duration::from_secs(7))));
        assert!(field(Some(&json!([])), "ttl").is_err());
        assert_eq!(show(Duration::from_hours(12)), "12h0m0s");
    }

    #[test]
    fn instants_are_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
