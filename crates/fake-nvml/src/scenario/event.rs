//! What the driver tells of its own accord.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::BusId;

/// The driver's queue, newest last. A waiter that falls more than [`EventLog::KEPT`] behind misses the oldest ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventLog {
    /// Sequence number of the next event. Never goes back, not even when the log is cleared.
    pub next: u64,
    pub log: Vec<Event>,
}

impl EventLog {
    pub const KEPT: usize = 512;

    pub(crate) fn push(&mut self, kind: EventKind, gpu: &str, bus_id: BusId, data: u64, instance: Option<(u32, u32)>) {
        self.log.push(Event {
            seq: self.next,
            kind,
            gpu: gpu.to_owned(),
            bus_id,
            data,
            gpu_instance: instance.map(|(gpu_instance, _)| gpu_instance),
            compute_instance: instance.map(|(_, compute_instance)| compute_instance),
        });
        self.next += 1;
        if self.log.len() > Self::KEPT {
            self.log.drain(..self.log.len() - Self::KEPT);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub seq: u64,
    pub kind: EventKind,
    /// UUID of the GPU.
    pub gpu: String,
    pub bus_id: BusId,
    /// The XID for [`EventKind::Xid`]; 0 for most others.
    #[serde(default)]
    pub data: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_instance: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_instance: Option<u32>,
}

/// Kinds of events, those of a device and (the last two) those of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum EventKind {
    SingleBitEcc,
    DoubleBitEcc,
    #[serde(rename = "pstate")]
    #[value(name = "pstate")]
    PState,
    Xid,
    Clock,
    PowerSource,
    MigConfig,
    SingleBitEccStorm,
    DramRetirement,
    DramRetirementFailure,
    NonFatalPoison,
    FatalPoison,
    GpuUnavailable,
    GpuRecoveryAction,
    /// The driver let go of a GPU: unbound, or surprise-removed.
    GpuUnbind,
    /// The driver took a GPU: hot-plugged, or bound again.
    GpuBind,
}

impl EventKind {
    /// What every data-centre GPU of the last generations reports.
    pub const DATA_CENTRE: [Self; 6] = [
        Self::SingleBitEcc,
        Self::DoubleBitEcc,
        Self::PState,
        Self::Xid,
        Self::Clock,
        Self::MigConfig,
    ];

    /// `nvmlEventType…`, one bit; 0 for events of the system.
    pub const fn device_bit(self) -> u64 {
        match self {
            Self::SingleBitEcc => 0x1,
            Self::DoubleBitEcc => 0x2,
            Self::PState => 0x4,
            Self::Xid => 0x8,
            Self::Clock => 0x10,
            Self::PowerSource => 0x80,
            Self::MigConfig => 0x100,
            Self::SingleBitEccStorm => 0x200,
            Self::DramRetirement => 0x400,
            Self::DramRetirementFailure => 0x800,
            Self::NonFatalPoison => 0x1000,
            Self::FatalPoison => 0x2000,
            Self::GpuUnavailable => 0x4000,
            Self::GpuRecoveryAction => 0x8000,
            Self::GpuUnbind | Self::GpuBind => 0,
        }
    }

    /// `nvmlSystemEventType…`, one bit; 0 for events of a device.
    pub const fn system_bit(self) -> u64 {
        match self {
            Self::GpuUnbind => 1,
            Self::GpuBind => 2,
            _ => 0,
        }
    }
}
