//! A session with the simulated driver.

use std::{sync::Arc, time::Duration};

use berth_placement::{ComputeMode, DeviceUuid};
use parking_lot::MutexGuard;

use super::{Shared, gpu::SimGpu, machine::Machine};
use crate::{
    GpuError, GpuSession,
    backend::{Discovery, GpuEvent, Progress, Refreshed},
    inventory::{DriverFacts, Process, Sample},
};

/// How often the control file is looked at while nothing else happens.
const CONTROL_FILE_POLL: Duration = Duration::from_millis(200);

pub(super) struct SimSession {
    shared: Arc<Shared>,
    progress: Progress,
    driver: DriverFacts,
    epoch: u64,
    layout: u64,
}

impl SimSession {
    pub(super) fn open(shared: &Arc<Shared>, progress: &Progress) -> Result<Self, GpuError> {
        let shared = Arc::clone(shared);
        let machine = enter(&shared, progress);
        if !machine.driver_loaded {
            // Nobody waits for events of a driver that is not there, so this is the time to look for its return.
            return Err(GpuError::NoDriver);
        }
        let (driver, epoch, layout) = (machine.driver(), machine.epoch, machine.layout);
        drop(machine);
        Ok(Self {
            progress: progress.clone(),
            driver,
            epoch,
            layout,
            shared,
        })
    }

    /// The machine, once it answers, if this session is still good.
    fn machine(&self) -> Result<MutexGuard<'_, Machine>, GpuError> {
        let machine = enter(&self.shared, &self.progress);
        if !machine.driver_loaded {
            return Err(GpuError::NoDriver);
        }
        if machine.epoch != self.epoch {
            return Err(GpuError::VersionMismatch);
        }
        Ok(machine)
    }

    fn ask<T>(&self, device: &DeviceUuid, what: impl FnOnce(&SimGpu) -> T) -> Result<T, GpuError> {
        let machine = self.machine()?;
        match machine.known(device) {
            None => Err(GpuError::NotFound),
            Some(gpu) if gpu.lost => Err(GpuError::DeviceLost),
            Some(gpu) => Ok(what(gpu)),
        }
    }
}

/// Waits while the driver hangs: the call makes no progress, as in life.
fn enter<'a>(shared: &'a Shared, progress: &Progress) -> MutexGuard<'a, Machine> {
    let mut machine = shared.machine.lock();
    shared.poll_control_file(&mut machine);
    while machine.hanging {
        shared.changed.wait_for(&mut machine, CONTROL_FILE_POLL);
        shared.poll_control_file(&mut machine);
    }
    progress.tick();
    machine
}

impl GpuSession for SimSession {
    fn driver(&self) -> DriverFacts {
        self.driver.clone()
    }

    fn discover(&mut self) -> Result<Discovery, GpuError> {
        let machine = self.machine()?;
        let (discovery, layout) = (machine.discover(), machine.layout);
        drop(machine);
        self.layout = layout;
        Ok(discovery)
    }

    fn refresh(&mut self, device: &DeviceUuid) -> Result<Refreshed, GpuError> {
        self.ask(device, |gpu| Refreshed {
            compute_mode: ComputeMode::Default,
            mig: gpu.mig_report(),
        })
    }

    fn sample(&mut self, device: &DeviceUuid) -> Result<Sample, GpuError> {
        self.ask(device, SimGpu::sample)
    }

    fn processes(&mut self, device: &DeviceUuid) -> Result<Vec<Process>, GpuError> {
        self.ask(device, |gpu| gpu.processes.clone())
    }

    fn devices_changed(&mut self) -> Result<bool, GpuError> {
        Ok(self.machine()?.layout != self.layout)
    }

    fn wait_event(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        let mut left = timeout;
        loop {
            let mut machine = self.machine()?;
            if let Some(event) = machine.next_event() {
                return Ok(Some(event));
            }
            if left.is_zero() {
                return Ok(None);
            }
            let slice = if self.shared.control_file.is_some() {
                left.min(CONTROL_FILE_POLL)
            } else {
                left
            };
            let woken = !self.shared.changed.wait_for(&mut machine, slice).timed_out();
            left = if woken {
                Duration::ZERO
            } else {
                left.saturating_sub(slice)
            };
        }
    }
}
