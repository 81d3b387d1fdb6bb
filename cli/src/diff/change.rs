//! One change: what `berthctl watch` prints a line of.

use serde::Serialize;

use crate::view::{Allocation, Device, Holder};

/// A difference between two looks at a node. Its JSON is a contract, as in [`crate::view`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) holder: Option<Holder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<String>,
    /// State, reason or version before and after, by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) message: String,
}

macro_rules! kinds {
    ($($name:ident),+ $(,)?) => {
        /// The kinds of change. The names are a contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub(crate) enum ChangeKind { $($name),+ }

        impl ChangeKind {
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

kinds! {
    Connected,
    Disconnected,
    DaemonRestarted,
    DriverChanged,
    ConditionChanged,
    DeviceAdded,
    DeviceRemoved,
    DeviceMissing,
    DeviceFound,
    DeviceCordoned,
    DeviceUncordoned,
    MigChanged,
    OutOfBandBegan,
    OutOfBandEnded,
    HealthChanged,
    HolderAdded,
    HolderChanged,
    HolderRemoved,
    DriftBegan,
    DriftEnded,
}

impl Change {
    pub(crate) fn new(kind: ChangeKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            device_uuid: None,
            index: None,
            holder: None,
            condition: None,
            from: None,
            to: None,
            reason: None,
            message: message.into(),
        }
    }

    pub(super) fn device(mut self, device: &Device) -> Self {
        self.device_uuid = Some(device.uuid.clone());
        self.index = Some(device.index);
        self
    }

    pub(super) fn holder(mut self, allocation: &Allocation) -> Self {
        self.holder.clone_from(&allocation.holder);
        self
    }

    pub(super) fn condition(mut self, kind: &str) -> Self {
        self.condition = Some(kind.to_owned());
        self
    }

    pub(super) fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    pub(super) fn between(mut self, from: &str, to: &str) -> Self {
        self.from = Some(from.to_owned());
        self.to = Some(to.to_owned());
        self
    }

    /// Whom or what it is about, in words.
    pub(crate) fn subject(&self) -> Option<String> {
        let device = || self.index.map(|index| format!("GPU {index}"));
        let holder = || self.holder.as_ref().map(Holder::to_string);
        device().or_else(holder).or_else(|| self.condition.clone())
    }
}
