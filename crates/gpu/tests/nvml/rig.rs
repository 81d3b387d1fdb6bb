//! A machine as NVML describes it, and a monitor that watches it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use berth_fake_nvml::{
    Installed, Scenario, built_library,
    profiles::machine,
    scenario::{EditError, Gpu},
};
use berth_gpu::{
    GpuBackend as _, GpuError, GpuSession, HealthConfig, HealthMemory, Inventory, Monitor, MonitorClock, MonitorConfig,
    MonitorHandle, NvmlBackend,
    backend::Progress,
    inventory::{DeviceReport, DriverState},
};
use berth_placement::Health;
use tempfile::TempDir;

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One copy of the library, with its own script.
pub(crate) struct Machine {
    pub(crate) installed: Installed,
    _dir: TempDir,
}

/// A monitor over that machine.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) monitor: MonitorHandle,
}

#[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn clock() -> MonitorClock {
    let start = now();
    let elapsed = move || start.elapsed();
    MonitorClock::new(
        move || 1_700_000_000_000 + u64::try_from(elapsed().as_millis()).unwrap(),
        elapsed,
    )
}

/// Everything much faster than in production.
pub(crate) fn fast() -> MonitorConfig {
    MonitorConfig {
        sweep: Duration::from_millis(100),
        refresh: Duration::from_millis(200),
        processes: Duration::from_millis(200),
        event_slice: Duration::from_millis(50),
        hang_after: Duration::from_secs(2),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
        health: HealthConfig {
            recovering_dwell: Duration::from_millis(200),
            ..HealthConfig::default()
        },
        ..MonitorConfig::default()
    }
}

/// No sweep after the first: what is seen later is seen by events.
pub(crate) fn by_events_only() -> MonitorConfig {
    let never = Duration::from_hours(1);
    MonitorConfig {
        sweep: never,
        refresh: never,
        processes: never,
        ..MonitorConfig::default()
    }
}

impl Machine {
    pub(crate) fn of(profile: &str) -> Self {
        Self::scripted(&machine(profile).unwrap().build("gpu-a").unwrap())
    }

    pub(crate) fn scripted(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = built_library().expect("cargo builds the library of a dev-dependency beside the test");
        let installed = Installed::new(dir.path(), &library, scenario).unwrap();
        Self { installed, _dir: dir }
    }

    pub(crate) fn backend(&self) -> NvmlBackend {
        NvmlBackend::new(Some(self.installed.library.clone()))
    }

    /// Changes the machine while it runs.
    pub(crate) fn edit<T>(&self, change: impl FnOnce(&mut Scenario) -> Result<T, EditError>) -> T {
        self.installed.state.edit(change).unwrap()
    }

    pub(crate) fn edit_gpu(&self, gpu: &str, change: impl FnOnce(&mut Gpu)) {
        self.edit(|scenario| scenario.gpu_mut(gpu).map(change));
    }

    /// Runs `body` in a session of its own.
    pub(crate) fn session<T>(&self, mut body: impl FnMut(&mut dyn GpuSession) -> T) -> Result<T, GpuError> {
        let mut out = None;
        self.backend()
            .with_session(&Progress::default(), &mut |session| out = Some(body(session)))?;
        Ok(out.unwrap())
    }

    pub(crate) fn watch(self, config: MonitorConfig) -> Rig {
        let backend = self.backend();
        let spawned = Monitor::spawn(config, clock(), HealthMemory::default(), move || {
            Box::new(backend.clone())
        });
        Rig {
            machine: self,
            monitor: spawned.unwrap(),
        }
    }
}

impl Rig {
    pub(crate) fn of(profile: &str, config: MonitorConfig) -> Self {
        Machine::of(profile).watch(config)
    }

    /// Waits for an inventory that is as described.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Inventory) -> bool) -> Arc<Inventory> {
        let mut inventory = self.monitor.inventory.clone();
        match tokio::time::timeout(PATIENCE, inventory.wait_for(|now| holds(now))).await {
            Ok(Ok(found)) => Arc::clone(&found),
            Ok(Err(_)) => panic!("the monitor stopped before: {what}"),
            Err(elapsed) => panic!("{elapsed}: {what}; it is {:#?}", self.monitor.inventory.borrow()),
        }
    }

    /// Waits until so many GPUs are known and read.
    pub(crate) async fn ready(&self, gpus: usize) -> Arc<Inventory> {
        let read = |device: &DeviceReport| device.sample.is_some();
        self.until("all GPUs are read", |now| {
            now.devices.len() == gpus && now.devices.iter().all(read)
        })
        .await
    }

    pub(crate) async fn health(&self, at: usize, state: Health) -> Arc<Inventory> {
        let is = |now: &Inventory| now.devices.get(at).is_some_and(|device| device.health.state == state);
        self.until(state.as_str(), is).await
    }

    /// An XID that is seen at once, or not at all: for use without sweeps.
    pub(crate) async fn hears_xids_of(&self, gpu: usize) {
        let sent = now();
        self.machine.edit(|scenario| scenario.xid(&gpu.to_string(), 62, None));
        self.health(gpu, Health::Unhealthy).await;
        assert!(sent.elapsed() < Duration::from_secs(1), "it took {:?}", sent.elapsed());
    }
}

impl Drop for Rig {
    /// The monitor ends before the machine under it does.
    fn drop(&mut self) {
        self.monitor.stop();
        let asked = now();
        while self.monitor.inventory.has_changed().is_ok() && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) fn reasons(inventory: &Inventory, at: usize) -> Vec<&'static str> {
    inventory.devices[at]
        .health
        .reasons
        .iter()
        .map(|reason| reason.reason)
        .collect()
}

pub(crate) fn is_ready(inventory: &Inventory) -> bool {
    matches!(inventory.driver, DriverState::Ready(_))
}

pub(crate) fn absent_because(inventory: &Inventory) -> Option<&'static str> {
    match inventory.driver {
        DriverState::Absent { reason, .. } => Some(reason),
        _ => None,
    }
}
