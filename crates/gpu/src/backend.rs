//! What the monitor needs of a driver: two small traits, written from the monitor's side.
//!
//! A session is handed to a closure instead of being returned, so that an implementation can keep everything that borrows
//! from the driver's library (device handles, event sets) on the stack of the one thread that uses it. When the closure
//! returns, all of it is dropped and the library is closed: that is how a driver upgrade is survived.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_placement::{ComputeMode, DeviceUuid};

use crate::{
    GpuError,
    inventory::{DeviceFacts, DriverFacts, MigReport, Process, Sample, Unidentified},
};

/// A driver that can be connected to, again and again.
pub trait GpuBackend: Send {
    /// Opens a session and runs `body` with it. Fails if there is no session to open; `progress` is ticked before every
    /// call that may block, so that a watchdog can tell slow from hung.
    fn with_session(&mut self, progress: &Progress, body: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError>;
}

/// One connection to a driver. An error for which [`GpuError::ends_session`] holds means that no later call can succeed.
pub trait GpuSession {
    fn driver(&self) -> DriverFacts;

    /// Every GPU, with all facts. Expensive (attaches to each GPU): once in a session.
    fn discover(&mut self) -> Result<Discovery, GpuError>;

    /// The facts that change while a GPU stays: cheap enough for every ten seconds.
    fn refresh(&mut self, device: &DeviceUuid) -> Result<Refreshed, GpuError>;

    /// One reading: cheap enough for every few seconds.
    fn sample(&mut self, device: &DeviceUuid) -> Result<Sample, GpuError>;

    /// Who runs on it. Milliseconds on a busy GPU.
    fn processes(&mut self, device: &DeviceUuid) -> Result<Vec<Process>, GpuError>;

    /// Whether GPUs came or went since `discover`: then this session is outdated.
    fn devices_changed(&mut self) -> Result<bool, GpuError>;

    /// Waits for an event, at most for `timeout`; without event support it just waits.
    fn wait_event(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError>;
}

/// All GPUs of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Sorted by index.
    pub devices: Vec<DeviceFacts>,
    pub unidentified: Vec<Unidentified>,
}

/// What [`GpuSession::refresh`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshed {
    pub compute_mode: ComputeMode,
    pub mig: MigReport,
}

/// What the driver tells of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuEvent {
    /// `None`: the driver did not say on which GPU (one that fell off the bus cannot tell its name any more).
    Xid { device: Option<DeviceUuid>, code: u32 },
    /// Something changed there: worth a look at once.
    Changed { device: DeviceUuid },
    /// GPUs came or went.
    DevicesChanged,
}

/// Proof of life: grows with every call that came back.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({})", self.count())
    }
}
