//! Quantities as people type them: memory (`20Gi`), a share of a GPU (`0.25`), a duration (`1m30s`).
//!
//! No floating point: a share and a duration are exact or refused, memory is rounded up to a byte.

use std::time::Duration;

use berth_placement::{MemoryBytes, MilliGpu};
use thiserror::Error;

/// Text that is no quantity. The message says what would be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum QuantityError {
    #[error("write an amount of memory such as 20Gi, 512Mi, 1.5Gi or 16G, above zero")]
    Memory,
    #[error("write a share from 0.001 to 1 with at most three decimals, such as 0.25, or thousandths, such as 250m")]
    Share,
    #[error("write a duration such as 500ms, 30s, 5m or 1h30m, above zero")]
    Duration,
}

const MEMORY_UNITS: [(&str, u64); 19] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Kubernetes quantities (`20Gi`, `16G`, plain bytes) and the same with a `B` behind (`20GiB`, `16GB`).
pub(super) fn memory(text: &str) -> Result<MemoryBytes, QuantityError> {
    let (number, unit) = split_number(text);
    let scale = MEMORY_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale);
    scale
        .and_then(|scale| rounded_up(number, scale))
        .filter(|bytes| *bytes > 0)
        .map(MemoryBytes::new)
        .ok_or(QuantityError::Memory)
}

/// `0.25`, `1`, `250m`.
pub(super) fn share(text: &str) -> Result<MilliGpu, QuantityError> {
    let (number, unit) = split_number(text);
    let milli = match unit {
        "" => exact(number, 1000),
        "m" => exact(number, 1),
        _ => None,
    };
    milli
        .filter(|milli| (1..=1000).contains(milli))
        .and_then(|milli| u32::try_from(milli).ok())
        .map(MilliGpu::new)
        .ok_or(QuantityError::Share)
}

/// One or more numbers, each with its unit: `30s`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, QuantityError> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| *scale);
        let part = scale
            .and_then(|scale| exact(number, scale))
            .ok_or(QuantityError::Duration)?;
        total = total.checked_add(part).ok_or(QuantityError::Duration)?;
        rest = tail;
    }
    if total == 0 {
        Err(QuantityError::Duration)
    } else {
        Ok(Duration::from_millis(total))
    }
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len()),
    )
}

/// The decimal `number` times `scale`, if that is a whole number: `("1.5", 1000)` is 1500.
fn exact(number: &str, scale: u64) -> Option<u64> {
    let (numerator, divisor) = fraction(number, scale)?;
    if numerator % divisor == 0 {
        u64::try_from(numerator / divisor).ok()
    } else {
        None
    }
}

/// The decimal `number` times `scale`, rounded up.
fn rounded_up(number: &str, scale: u64) -> Option<u64> {
    let (numerator, divisor) = fraction(number, scale)?;
    u64::try_from(numerator.div_ceil(divisor)).ok()
}

/// The decimal `number` (at most nine decimals) times `scale`, as numerator and divisor.
fn fraction(number: &str, scale: u64) -> Option<(u128, u128)> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 9 {
        return None;
    }
    let divisor = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let digits: u64 = format!("{whole}{decimals}").parse().ok()?;
    Some((u128::from(digits) * u128::from(scale), divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_kubernetes_units_and_their_long_forms() {
        for (text, bytes) in [
            ("20Gi", 20 << 30),
            ("20GiB", 20 << 30),
            ("1.5Gi", 3 << 29),
            ("512Mi", 512 << 20),
            ("16G", 16_000_000_000),
            ("16GB", 16_000_000_000),
            (".5k", 500),
            ("0.3Ki", 308),
            ("4096", 4096),
        ] {
            assert_eq!(memory(text).map(MemoryBytes::get), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_share_is_exact_to_the_thousandth() {
        for (text, milli) in [
            ("0.25", 250),
            (".5", 500),
            ("1", 1000),
            ("1.0", 1000),
            ("250m", 250),
            ("0.001", 1),
        ] {
            assert_eq!(share(text).map(MilliGpu::get), Ok(milli), "{text}");
        }
    }

    #[test]
    fn durations_add_their_parts() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("1.5s", 1_500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_what_would_be() {
        for text in [
            "",
            "Gi",
            "-1Gi",
            "20Q",
            "20 Gi",
            "0",
            "0Gi",
            "1.2.3Gi",
            "99999999999Ti",
            "1e3",
            "٣Gi",
        ] {
            assert_eq!(memory(text), Err(QuantityError::Memory), "{text:?}");
        }
        for text in ["", "0", "1.5", "0.0001", "-0.5", "25%", "1001m", "0.5m", "NaN"] {
            assert_eq!(share(text), Err(QuantityError::Share), "{text:?}");
        }
        for text in [
            "",
            "0s",
            "30",
            "s",
            "1d",
            "-3s",
            "1h30",
            "1s 2s",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(text), Err(QuantityError::Duration), "{text:?}");
        }
    }
}
