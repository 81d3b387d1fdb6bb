//! Kubernetes quantities (`resource.Quantity` of apimachinery), exact to the billionth.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

#[cfg(test)]
mod tests;

const NANO: u128 = 1_000_000_000;
/// Kubernetes caps every quantity at 2^63 - 1.
const CAP: u128 = i64::MAX as u128 * NANO;
/// Digits that fit the arithmetic below with certainty; Kubernetes itself writes no more than 9 behind the point.
const MAX_FRACTION: usize = 18;

/// An amount of a resource: CPU cores, bytes, devices. Counted in billionths, capped at ±(2^63 - 1) units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nano: i128,
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("quantity {text:?} is not valid: {problem}")]
pub struct QuantityError {
    /// Cut to 40 characters: it came from outside.
    text: String,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    NoDigits,
    Suffix,
    Exponent,
    TooManyDigits,
}

#[derive(Clone, Copy)]
enum Suffix {
    /// Times 2 to the power of this.
    Binary(u32),
    /// Times 10 to the power of this.
    Decimal(i32),
}

impl QuantityError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        "InvalidQuantity"
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDigits => "it starts with a number, e.g. 500m, 1.5, 16Gi",
            Self::Suffix => "the suffix must be one of n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3",
            Self::Exponent => "the exponent must be a whole number",
            Self::TooManyDigits => "it has more digits than can be counted exactly",
        })
    }
}

impl Quantity {
    pub const ZERO: Self = Self { nano: 0 };

    /// That many units.
    pub const fn whole(units: i64) -> Self {
        Self {
            // Cannot overflow: 2^63 * 10^9 < 2^127. `From` is not const.
            nano: units as i128 * NANO.cast_signed(),
        }
    }

    /// In units, rounded up (away from nothing that was asked for), as Go's `Value()`.
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// In thousandths, rounded up, as Go's `MilliValue()`; capped at 2^63 - 1.
    pub fn milli(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// In billionths; exact.
    pub const fn nano(self) -> i128 {
        self.nano
    }

    /// The number of units if it is a whole one.
    pub fn as_whole(self) -> Option<i64> {
        (self.nano % NANO.cast_signed() == 0).then(|| self.value())
    }

    pub fn saturating_add(self, other: Self) -> Self {
        let cap = CAP.cast_signed();
        Self {
            nano: (self.nano + other.nano).clamp(-cap, cap),
        }
    }

    fn scaled(self, unit: u128) -> i64 {
        let unit = unit.cast_signed();
        let up = i128::from(self.nano.rem_euclid(unit) != 0);
        let scaled = self.nano.div_euclid(unit) + up;
        i64::try_from(scaled).unwrap_or(if scaled > 0 { i64::MAX } else { i64::MIN })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| QuantityError {
            text: text.chars().take(40).collect(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Quantity, Problem> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(Problem::NoDigits);
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let mantissa: u128 = match digits {
        "" => 0,
        digits => digits.parse().map_err(|_| Problem::TooManyDigits)?,
    };
    if fraction.len() > MAX_FRACTION {
        return Err(Problem::TooManyDigits);
    }
    // At most MAX_FRACTION.
    let scale = i32::try_from(fraction.len()).map_err(|_| Problem::TooManyDigits)?;
    let nano = match parse_suffix(suffix)? {
        Suffix::Decimal(exponent) => times_power_of_ten(mantissa, exponent.saturating_add(9).saturating_sub(scale)),
        // An overflow means at least 2^128 / 10^18 units, and that is above the cap.
        Suffix::Binary(shift) => match mantissa.checked_mul(1 << shift) {
            Some(shifted) => times_power_of_ten(shifted, 9 - scale),
            None => CAP,
        },
    };
    let nano = nano.min(CAP).cast_signed();
    Ok(Quantity {
        nano: if text.starts_with('-') { -nano } else { nano },
    })
}

fn parse_suffix(suffix: &str) -> Result<Suffix, Problem> {
    Ok(match suffix {
        "" => Suffix::Decimal(0),
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Problem::Suffix)?;
            Suffix::Decimal(exponent.parse().map_err(|_| Problem::Exponent)?)
        }
    })
}

/// Rounds up; stops at the cap.
fn times_power_of_ten(mantissa: u128, exponent: i32) -> u128 {
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    match (mantissa, power) {
        (0, _) => 0,
        (_, Some(power)) if exponent < 0 => mantissa.div_ceil(power),
        (_, Some(power)) => mantissa.saturating_mul(power).min(CAP),
        // Below a billionth, and not zero.
        (_, None) if exponent < 0 => 1,
        (_, None) => CAP,
    }
}

impl fmt::Display for Quantity {
    /// As a plain decimal number without suffix: `0.5`, `17179869184`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.nano.unsigned_abs() / NANO, self.nano.unsigned_abs() % NANO);
        let digits = if rest == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{rest:09}").trim_end_matches('0').to_owned()
        };
        f.pad_integral(self.nano >= 0, "", &digits)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a string, or from a bare number, as Go does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as \"500m\", \"16Gi\" or 8")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, units: i64) -> Result<Quantity, E> {
                Ok(Quantity::whole(units))
            }

            fn visit_u64<E: de::Error>(self, units: u64) -> Result<Quantity, E> {
                Ok(Quantity::whole(i64::try_from(units).unwrap_or(i64::MAX)))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
