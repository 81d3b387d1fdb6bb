//! Why not: stable reasons, the same string in the gRPC detail, the Kubernetes event, the metric label and the CLI.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why a device or a node does not take a shape. The names are a contract: never rename one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Stable CamelCase name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

reasons! {
    /// The device must be avoided: critical XID, lost, failed row remapping, …
    DeviceUnhealthy,
    /// The device is being probed after a fault.
    DeviceRecovering,
    /// The device was taken out of scheduling by an operator.
    DeviceCordoned,
    /// Its compute mode allows no compute.
    ComputeProhibited,
    /// Its compute mode allows one process: no shares.
    ExclusiveProcess,
    /// The shape names models, and this is another.
    ModelMismatch,
    /// The device is split by MIG and the shape wants no MIG instance.
    MigEnabled,
    /// The shape wants a MIG instance and the device is not split.
    MigDisabled,
    /// No instance of that profile exists on the device.
    NoSuchMigProfile,
    /// Every instance of that profile is held.
    MigInstancesHeld,
    /// Somebody holds the device, or a part of it, and the shape wants all of it.
    DeviceHeld,
    /// Too few free thousandths.
    InsufficientMilli,
    /// Too little free memory.
    InsufficientMemory,
    /// A process that nobody assigned runs there.
    OutOfBandUse,
    /// Enough devices were counted for the node as a whole, but not enough of them fit the shape.
    InsufficientDevices,
    /// The node has no GPU at all.
    NoDevices,
    /// Too little CPU on the node.
    InsufficientCpu,
    /// Too little host memory on the node.
    InsufficientHostMemory,
    /// No node of that name is known.
    UnknownNode,
    /// The node's daemon cannot be reached, so what it said last may be wrong.
    NodeUnreachable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A "no", with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    /// E.g. `2 of 4 GPUs: 5 DeviceHeld, 1 DeviceUnhealthy`.
    pub message: String,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_camel_case_and_distinct() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(char::is_alphanumeric) && name.starts_with(char::is_uppercase))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
