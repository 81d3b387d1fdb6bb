//! Identities, parsed once at the edge: past it no invalid name exists.
//!
//! All are cheap to clone (`Arc<str>` inside) and order by their text.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An identity that does not have the form that its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct ParseIdError {
    kind: &'static str,
    /// Cut to 80 characters: it came from outside.
    text: String,
    rule: &'static str,
}

impl ParseIdError {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        Self {
            kind,
            text: text.chars().take(80).collect(),
            rule,
        }
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text, as it was parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(ParseIdError::new($kind, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn printable(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(|b| b.is_ascii_graphic())
}

/// RFC 1123 subdomain, the form of Kubernetes node, pod and namespace names.
fn dns_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// `1g.10gb`, `7g.80gb`, `1c.3g.40gb`, with media extensions `1g.10gb+me`, `1g.12gb+me.all`, `1g.24gb-me`, `+gfx`.
fn mig_profile(text: &str) -> bool {
    let (base, attributes) = text.find(['+', '-']).map_or((text, ""), |at| text.split_at(at));
    let number = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let slices = |part: &str, unit| part.strip_suffix(unit).is_some_and(number);
    let base_ok = match *base.split('.').collect::<Vec<_>>() {
        [gi, memory] => slices(gi, "g") && slices(memory, "gb"),
        [ci, gi, memory] => slices(ci, "c") && slices(gi, "g") && slices(memory, "gb"),
        _ => false,
    };
    base_ok
        && attributes.len() <= 16
        && attributes
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b"+-.".contains(&b))
}

/// Domain of four or eight hex digits, bus and device of two, function of one: `00000000:1B:00.0`.
fn pci_bus_id(text: &str) -> bool {
    let hex =
        |part: &str, lengths: &[usize]| lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((rest, function)) = text.rsplit_once('.') else {
        return false;
    };
    match *rest.split(':').collect::<Vec<_>>() {
        [domain, bus, device] => hex(domain, &[4, 8]) && hex(bus, &[2]) && hex(device, &[2]) && hex(function, &[1]),
        _ => false,
    }
}

text_id!(
    /// A GPU's or a MIG instance's UUID as the driver tells it. The only identity of a device: indexes move.
    DeviceUuid, "device UUID", "it starts with GPU- or MIG- and has at most 96 printable characters",
    |text| (text.starts_with("GPU-") || text.starts_with("MIG-")) && text.len() > 4 && printable(text, 96)
);
text_id!(
    /// `00000000:1B:00.0`.
    PciBusId, "PCI bus id", "it has the form 00000000:1B:00.0", pci_bus_id
);
text_id!(
    /// Short name of a product as instance types spell it: `H100`, `A100`, `L40S`.
    GpuModel, "GPU model", "it has 1 to 64 printable characters without white space", |text| printable(text, 64)
);
text_id!(
    /// A MIG profile's name: `1g.10gb`.
    MigProfile, "MIG profile", "it has the form 1g.10gb", mig_profile
);
text_id!(
    /// Name of a Kubernetes node, or of a host.
    NodeName, "node name", "it is a DNS subdomain: lower-case letters, digits, '-' and '.', at most 253 characters",
    dns_subdomain
);
text_id!(
    /// A pod's UID: what the API server gave it, opaque to us.
    PodUid, "pod UID", "it has 1 to 128 printable characters", |text| printable(text, 128)
);
text_id!(
    /// A lease's id: a UUID that the daemon makes.
    LeaseId, "lease id", "it has 1 to 64 printable characters", |text| printable(text, 64)
);

impl DeviceUuid {
    /// True for a MIG instance, false for a GPU.
    pub fn is_mig(&self) -> bool {
        self.0.starts_with("MIG-")
    }
}

/// A pod: name and namespace for people and for the kubelet's book, the UID for identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: PodUid,
}

impl PodRef {
    /// Checks both names as Kubernetes does.
    pub fn new(namespace: &str, name: &str, uid: PodUid) -> Result<Self, ParseIdError> {
        let rule = "it is a DNS subdomain: lower-case letters, digits, '-' and '.', at most 253 characters";
        if !dns_subdomain(namespace) {
            return Err(ParseIdError::new("pod namespace", namespace, rule));
        }
        if !dns_subdomain(name) {
            return Err(ParseIdError::new("pod name", name, rule));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
        })
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_what_the_driver_and_kubernetes_send() {
        for text in [
            "1g.10gb",
            "7g.80gb",
            "1c.3g.40gb",
            "1g.10gb+me",
            "1g.12gb+me.all",
            "1g.24gb-me",
            "4g.96gb+gfx",
        ] {
            assert!(text.parse::<MigProfile>().is_ok(), "{text}");
        }
        for text in ["00000000:1B:00.0", "0000:00:1e.0"] {
            assert!(text.parse::<PciBusId>().is_ok(), "{text}");
        }
        assert!("GPU-4c1f0f5e-5b5c-7a0e-2b6c-3d2f9c1a0b11".parse::<DeviceUuid>().is_ok());
        assert!("gpu-0000.example.com".parse::<NodeName>().is_ok());
    }

    #[test]
    fn ids_refuse_garbage_and_say_the_rule() {
        for text in ["", "1g", "g.gb", "1g.10gb+ME", "10gb", "1g.10gb.1g.1g"] {
            assert!(text.parse::<MigProfile>().is_err(), "{text}");
        }
        for text in ["", "UUID", "GPU-", "GPU-a b", "GPU-\u{e9}"] {
            assert!(text.parse::<DeviceUuid>().is_err(), "{text}");
        }
        for text in ["", "Node", "-a", "a..b", "a_b"] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
        let error = "x".repeat(300).parse::<DeviceUuid>().unwrap_err().to_string();
        assert!(
            error.contains("starts with GPU- or MIG-") && error.len() < 200,
            "{error}"
        );
    }

    #[test]
    fn ids_survive_serde_and_are_checked_on_the_way_in() {
        let uuid: DeviceUuid = "GPU-1".parse().unwrap();
        let json = serde_json::to_string(&uuid).unwrap();
        assert_eq!(json, "\"GPU-1\"");
        assert_eq!(serde_json::from_str::<DeviceUuid>(&json).unwrap(), uuid);
        assert!(serde_json::from_str::<DeviceUuid>("\"nonsense\"").is_err());
    }
}
