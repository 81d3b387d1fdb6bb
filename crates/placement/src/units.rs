//! Quantities with their unit in the type. Arithmetic is checked: a capacity never wraps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of memory, of a GPU's frame buffer or of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryBytes(u64);

/// Thousandths of one GPU: 1000 is a whole one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliGpu(u32);

/// Thousandths of a CPU core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuMilli(pub u64);

impl MemoryBytes {
    pub const ZERO: Self = Self(0);

    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Saturates at `u64::MAX` bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// Saturates at `u64::MAX` bytes.
    pub const fn from_gib(gib: u64) -> Self {
        Self::from_mib(gib.saturating_mul(1 << 10))
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The share of `total` that this is, in thousandths, rounded up; more than 1000 where it is larger than `total`.
    pub fn milli_of(self, total: Self) -> MilliGpu {
        if total.0 == 0 {
            return MilliGpu(if self.0 == 0 { 0 } else { u32::MAX });
        }
        let milli = (u128::from(self.0) * 1000).div_ceil(u128::from(total.0));
        MilliGpu(u32::try_from(milli).unwrap_or(u32::MAX))
    }
}

impl MilliGpu {
    pub const ZERO: Self = Self(0);
    /// A whole GPU.
    pub const WHOLE: Self = Self(1000);

    pub const fn new(milli: u32) -> Self {
        Self(milli)
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This share of `total` bytes, rounded down, so that shares that add up to a GPU never exceed its memory.
    pub fn memory_of(self, total: MemoryBytes) -> MemoryBytes {
        let bytes = u128::from(total.0) * u128::from(self.0) / 1000;
        MemoryBytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for MemoryBytes {
    /// In GiB where it is at least one, else in MiB; one decimal where needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = if self.0 >= 1 << 30 {
            (1u64 << 30, "GiB")
        } else {
            (1 << 20, "MiB")
        };
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        let text = match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole} {name}"),
            (whole, tenth) => format!("{whole}.{tenth} {name}"),
        };
        f.pad(&text)
    }
}

impl fmt::Display for MilliGpu {
    /// As a decimal number of GPUs: `0.25`, `1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        let text = if rest == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
        };
        f.pad(&text)
    }
}

impl fmt::Display for CpuMilli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}m", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_by_memory_rounds_up_and_a_share_by_milli_rounds_down() {
        let total = MemoryBytes::from_gib(80);
        assert_eq!(MemoryBytes::from_gib(20).milli_of(total), MilliGpu::new(250));
        assert_eq!(MemoryBytes::new(1).milli_of(total), MilliGpu::new(1));
        assert_eq!(MemoryBytes::from_gib(100).milli_of(total), MilliGpu::new(1250));
        assert_eq!(
            MilliGpu::new(333).memory_of(MemoryBytes::new(1000)),
            MemoryBytes::new(333)
        );
        assert_eq!(MilliGpu::new(1).memory_of(MemoryBytes::new(999)), MemoryBytes::ZERO);
    }

    #[test]
    fn quantities_are_written_for_people() {
        assert_eq!(MemoryBytes::from_gib(80).to_string(), "80 GiB");
        assert_eq!(MemoryBytes::from_mib(81_559).to_string(), "79.6 GiB");
        assert_eq!(MilliGpu::new(250).to_string(), "0.25");
        assert_eq!(MilliGpu::WHOLE.to_string(), "1");
    }
}
