//! Names of devices: PCI addresses and UUIDs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A PCI address. Written as NVML does, `00000000:1B:00.0`; also read in the kernel's form, `0000:1b:00.0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BusId {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

impl BusId {
    pub const fn new(domain: u32, bus: u8) -> Self {
        Self { domain, bus, device: 0 }
    }

    /// NVML's older 16-byte form, which has room for four digits of the domain.
    pub fn legacy(self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.domain & 0xFFFF, self.bus, self.device)
    }

    /// The 32-bit id under which the driver reports bind and unbind.
    pub fn gpu_id(self) -> u32 {
        (self.domain & 0xFFFF) << 16 | u32::from(self.bus) << 8 | u32::from(self.device)
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

impl FromStr for BusId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(':').rev();
            let (device, function) = parts.next()?.split_once('.').unwrap_or(("", "0"));
            let bus = parts.next()?;
            let domain = parts.next().unwrap_or("0");
            if parts.next().is_some() || function != "0" {
                return None;
            }
            Some(Self {
                domain: u32::from_str_radix(domain, 16).ok()?,
                bus: u8::from_str_radix(bus, 16).ok()?,
                device: u8::from_str_radix(device, 16).ok().filter(|device| *device < 32)?,
            })
        };
        parse().ok_or_else(|| format!("{text:?} is no PCI bus id; write it as 00000000:1B:00.0"))
    }
}

impl TryFrom<String> for BusId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BusId> for String {
    fn from(id: BusId) -> Self {
        id.to_string()
    }
}

/// A UUID that depends on nothing but `parts`: scenarios must come out the same on every machine and in every run.
pub fn hashed_uuid(prefix: &str, parts: &[&str]) -> String {
    let low = fnv(0xcbf2_9ce4_8422_2325, parts);
    let high = fnv(low ^ 0x9e37_79b9_7f4a_7c15, parts);
    format!(
        "{prefix}-{:08x}-{:04x}-5{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xFFFF,
        high & 0xFFF,
        low >> 48 & 0x3FFF | 0x8000,
        low & 0xFFFF_FFFF_FFFF,
    )
}

fn fnv(seed: u64, parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Spread what the last bytes changed over all digits.
    let hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_id_is_read_in_both_forms() {
        let id = BusId::new(0, 0x1B);
        for text in ["00000000:1B:00.0", "0000:1b:00.0", "1b:00.0"] {
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
        assert_eq!(id.to_string(), "00000000:1B:00.0");
        assert_eq!(id.legacy(), "0000:1B:00.0");
        for text in ["", "1B", "0:1B:00.1", "0:0:1B:00.0", "zz:00.0", "1b:40.0"] {
            assert!(text.parse::<BusId>().is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_are_reproducible_and_distinct() {
        let uuid = hashed_uuid("GPU", &["node-a", "0"]);
        assert_eq!(uuid, hashed_uuid("GPU", &["node-a", "0"]));
        assert_ne!(uuid, hashed_uuid("GPU", &["node-a", "1"]));
        assert_ne!(hashed_uuid("GPU", &["ab", "c"]), hashed_uuid("GPU", &["a", "bc"]));
        assert_eq!(uuid.len(), "GPU-".len() + 36);
    }
}
