//! The monitor: keeps the inventory true, whatever the driver does.
//!
//! Two threads. The *worker* owns the backend and may hang in a driver call; the *supervisor* owns what is known, publishes
//! it, and watches the worker: one that makes no progress is abandoned and replaced.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use berth_placement::DeviceUuid;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::{
    backend::GpuBackend,
    health::{HealthConfig, HealthMemory},
    inventory::{HealthReport, Inventory},
};

/// Where the monitor gets the time from.
#[derive(Clone)]
pub struct MonitorClock {
    /// Wall clock, milliseconds since 1970-01-01 UTC: for people.
    pub unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Time since an arbitrary start, never going back: for cadences and dwell times.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// How often what is done. [`MonitorConfig::default`] keeps eight GPUs well under 0.2 % of a core.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorConfig {
    /// Readings, and whether GPUs came or went.
    pub sweep: Duration,
    /// Compute mode and MIG layout. Rounded up to whole sweeps.
    pub refresh: Duration,
    /// Process lists, plus up to a fifth of it as jitter.
    pub processes: Duration,
    /// Longest wait for an event in one call: bounds how long a stop takes.
    pub event_slice: Duration,
    /// A driver call that takes longer is taken to hang.
    pub hang_after: Duration,
    /// First pause after a failed connect; doubles up to `retry_max`.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// Threads that may hang in the driver at the same time before no new one is started.
    pub max_abandoned: usize,
    /// Identifies this boot of the machine (see [`boot_id`]): what a reboot cures is cured when it differs from the one in
    /// the [`HealthMemory`].
    pub boot_id: Option<String>,
    pub health: HealthConfig,
}

/// Starts monitors.
#[derive(Debug, Clone, Copy)]
pub struct Monitor;

/// A running monitor. It stops when this is dropped.
#[derive(Debug)]
pub struct MonitorHandle {
    /// The inventory; each new value is a complete one.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// What must survive a restart of this process; changes seldom. Hand the last one to the next [`Monitor::spawn`].
    pub memory: watch::Receiver<Arc<HealthMemory>>,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The device's health right after.
    pub health: HealthReport,
    /// Reasons that were taken back.
    pub cleared: Vec<&'static str>,
}

/// Why an acknowledgement did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcknowledgeError {
    #[error("no GPU with UUID {0} is known on this node")]
    UnknownDevice(DeviceUuid),
    #[error("the device monitor is stopping")]
    Stopped,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            sweep: Duration::from_secs(5),
            refresh: Duration::from_secs(10),
            processes: Duration::from_secs(10),
            event_slice: Duration::from_millis(500),
            hang_after: Duration::from_secs(10),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(15),
            max_abandoned: 3,
            boot_id: None,
            health: HealthConfig::default(),
        }
    }
}

/// The kernel's id of this boot; `None` where there is no such file.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned())
}

impl fmt::Debug for MonitorClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MonitorClock")
    }
}

impl Monitor {
    /// Starts watching. `backend` is called for each new worker thread: once at first, again after a hang.
    /// `memory` is what the last run published, or [`HealthMemory::default`].
    pub fn spawn(
        config: MonitorConfig,
        clock: MonitorClock,
        memory: HealthMemory,
        backend: impl FnMut() -> Box<dyn GpuBackend> + Send + 'static,
    ) -> std::io::Result<MonitorHandle> {
        let _ = (config, clock, backend);
        let (_, inventory) = watch::channel(Arc::new(Inventory::starting()));
        let (_, memory) = watch::channel(Arc::new(memory));
        Ok(MonitorHandle { inventory, memory })
    }
}

impl MonitorHandle {
    /// An operator's word that the cause of a device's ill health is dealt with.
    pub async fn acknowledge(&self, device: DeviceUuid, message: String) -> Result<Acknowledged, AcknowledgeError> {
        let (_, answer) = oneshot::channel();
        let _ = (device, message);
        answer.await.map_err(|_| AcknowledgeError::Stopped)
    }

    /// Asks the monitor to stop; returns at once.
    pub fn stop(&self) {}

    /// Waits until it has stopped: at most about a second after [`MonitorHandle::stop`], even if a driver call hangs.
    pub async fn stopped(&self) {}
}

impl AcknowledgeError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownDevice(_) => "UnknownDevice",
            Self::Stopped => "MonitorStopped",
        }
    }
}
