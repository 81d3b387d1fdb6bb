//! What can be done to the simulated machine. The JSON form is the contract of the control file.

use std::fmt;

use berth_placement::{DeviceUuid, MigProfile};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::inventory::{RecoveryAction, ThrottleReason};

/// One command, as JSON an object with one key: `{"xid":{"gpu":3,"code":79}}`, `{"lose":{"gpu":3}}`, `{"unload":{}}`.
///
/// `gpu` is a position from 0, or a UUID. Positions stay when other GPUs come and go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Sends an XID. 79 also takes the GPU off the bus, as in life; for other consequences use the other commands.
    Xid {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        code: u32,
    },
    /// Counts memory errors.
    Ecc {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        #[serde(default)]
        corrected: u64,
        #[serde(default)]
        uncorrected: u64,
    },
    /// Sets the row remapper's flags.
    Remap {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        #[serde(default)]
        pending: bool,
        #[serde(default)]
        failed: bool,
    },
    /// Sets what the driver asks for.
    RecoveryAction {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        action: RecoveryAction,
    },
    /// Holds the clocks back for these reasons; none: lets go.
    Throttle {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        reasons: Vec<ThrottleReason>,
    },
    /// The GPU falls off the bus, silently.
    Lose {
        #[serde(alias = "index")]
        gpu: GpuSelector,
    },
    /// The GPU is reset: it answers, asks for nothing, and its counters are at zero.
    #[serde(alias = "reset")]
    Restore {
        #[serde(alias = "index")]
        gpu: GpuSelector,
    },
    /// The GPU is unplugged.
    Remove {
        #[serde(alias = "index")]
        gpu: GpuSelector,
    },
    /// A removed GPU is plugged in again; without `gpu` a new one like the first.
    Add {
        #[serde(default, alias = "index")]
        gpu: Option<GpuSelector>,
    },
    /// Turns MIG on with these instances (also none), or off with `null`.
    Mig {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        profiles: Option<Vec<MigProfile>>,
    },
    /// A process starts; on a MIG device on the instance of this number.
    Process {
        #[serde(alias = "index")]
        gpu: GpuSelector,
        pid: u32,
        /// Bytes.
        #[serde(default)]
        memory: u64,
        #[serde(default)]
        instance: Option<u32>,
    },
    /// A process ends, wherever it runs.
    EndProcess { pid: u32 },
    /// The driver is unloaded.
    Unload {},
    /// The driver is loaded, perhaps in another version.
    Load {
        #[serde(default)]
        version: Option<String>,
    },
    /// Every call into the driver hangs.
    Hang {},
    /// Hung calls come back.
    Answer {},
}

/// Which GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GpuSelector {
    Position(u32),
    Uuid(DeviceUuid),
}

/// A command that the machine cannot obey. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    #[error("there is no GPU {0} in the simulated machine")]
    NoSuchGpu(GpuSelector),
    #[error("a {product} cannot be split by MIG")]
    NoMig { product: &'static str },
    #[error(
        "{profile} does not fit a {product}: all profiles together may have 7 compute slices and all of its memory"
    )]
    MigDoesNotFit { product: &'static str, profile: MigProfile },
    #[error("the simulated machine has {0} GPUs already, the most it can have")]
    Full(u32),
}

impl CommandError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchGpu(_) => "NoSuchGpu",
            Self::NoMig { .. } => "NoMig",
            Self::MigDoesNotFit { .. } => "MigDoesNotFit",
            Self::Full(_) => "MachineFull",
        }
    }
}

impl From<u32> for GpuSelector {
    fn from(position: u32) -> Self {
        Self::Position(position)
    }
}

impl From<DeviceUuid> for GpuSelector {
    fn from(uuid: DeviceUuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for GpuSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => position.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}
