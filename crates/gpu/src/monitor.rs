//! The monitor: keeps the inventory true, whatever the driver does.
//!
//! Two threads. The *worker* owns the backend and may hang in a driver call; the *supervisor* owns what is known, publishes
//! it, and watches the worker: one that makes no progress is abandoned and replaced. Between them one bounded channel,
//! `Message`, which also carries what the handle asks for. Both ends of the published values are `tokio::sync::watch`.

mod clock;
mod state;
mod supervisor;
mod worker;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use berth_placement::DeviceUuid;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use clock::MonitorClock;

use self::supervisor::{Message, Supervisor};
use crate::{
    backend::GpuBackend,
    health::{HealthConfig, HealthMemory},
    inventory::{HealthReport, Inventory},
};

/// Reports wait here while the supervisor publishes, which takes microseconds; a worker that finds it full waits.
const CHANNEL: usize = 64;

/// How often what is done. [`MonitorConfig::default`] keeps eight GPUs well under 0.2 % of a core.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorConfig {
    /// Readings, and whether GPUs came or went.
    pub sweep: Duration,
    /// Compute mode and MIG layout.
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
    /// The inventory; each new value is a complete one. Closed when the monitor has stopped.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// What must survive a restart of this process; changes seldom. Hand the last one to the next [`Monitor::spawn`].
    pub memory: watch::Receiver<Arc<HealthMemory>>,
    messages: SyncSender<Message>,
    stopping: Arc<AtomicBool>,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The device's health right after.
    pub health: HealthReport,
    /// Reasons that ended. Empty where there was nothing to acknowledge, or where the driver still shows what is wrong.
    pub cleared: Vec<&'static str>,
}

/// Why an acknowledgement did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcknowledgeError {
    #[error("no GPU with UUID {0} is known on this node")]
    UnknownDevice(DeviceUuid),
    #[error("the device monitor is busy: try again")]
    Busy,
    #[error("the device monitor has stopped")]
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

/// The kernel's id of this boot; `None` where it does not tell.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

impl Monitor {
    /// Starts watching. `backend` is called for each new worker thread: once at first, again after a hang.
    /// `memory` is what the last run published, or [`HealthMemory::default`]. Fails only if no thread can be started.
    pub fn spawn(
        config: MonitorConfig,
        clock: MonitorClock,
        memory: HealthMemory,
        backend: impl FnMut() -> Box<dyn GpuBackend> + Send + 'static,
    ) -> io::Result<MonitorHandle> {
        let (messages, inbox) = sync_channel(CHANNEL);
        let (inventory_out, inventory) = watch::channel(Arc::new(Inventory::starting()));
        let (memory_out, memory_in) = watch::channel(Arc::new(memory.clone()));
        let stopping = Arc::new(AtomicBool::new(false));
        let supervisor = Supervisor::new(
            config,
            clock,
            memory,
            supervisor::Wiring {
                backend: Box::new(backend),
                inventory: inventory_out,
                memory: memory_out,
                messages: messages.clone(),
                inbox,
                stopping: Arc::clone(&stopping),
            },
        );
        thread::Builder::new()
            .name("gpu-monitor".to_owned())
            .spawn(move || supervisor.run())?;
        Ok(MonitorHandle {
            inventory,
            memory: memory_in,
            messages,
            stopping,
        })
    }
}

impl MonitorHandle {
    /// An operator's word that the cause of a device's ill health is dealt with.
    pub async fn acknowledge(&self, device: DeviceUuid, message: String) -> Result<Acknowledged, AcknowledgeError> {
        let (answer, answered) = oneshot::channel();
        match self.messages.try_send(Message::Acknowledge {
            device,
            message,
            answer,
        }) {
            Ok(()) => answered.await.unwrap_or(Err(AcknowledgeError::Stopped)),
            Err(TrySendError::Full(_)) => Err(AcknowledgeError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(AcknowledgeError::Stopped),
        }
    }

    /// Asks the monitor to stop; returns at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Full means that the supervisor is awake: it looks at the flag.
        drop(self.messages.try_send(Message::Wake));
    }

    /// Waits until it has stopped: about a second after [`MonitorHandle::stop`] at most, even if a driver call hangs.
    pub async fn stopped(&self) {
        let mut inventory = self.inventory.clone();
        while inventory.changed().await.is_ok() {}
    }
}

impl Drop for MonitorHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

impl AcknowledgeError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownDevice(_) => "UnknownDevice",
            Self::Busy => "MonitorBusy",
            Self::Stopped => "MonitorStopped",
        }
    }
}

#[cfg(test)]
mod tests;
