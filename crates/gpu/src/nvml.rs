//! The real driver, through NVML.
//!
//! A session opens the library, looks, and closes the library again when it is over, so that a driver that is replaced
//! under a running daemon is found by the next session. Everything that borrows from the library (handles, event sets)
//! lives inside one call of [`NvmlBackend::with_session`]. What a driver or a GPU does not offer is absent in the result,
//! never an error: this runs on whatever NVML there is. The only `unsafe` is in `raw`.

mod error;
mod events;
mod facts;
mod hotplug;
mod mig;
mod processes;
mod raw;
mod sample;
mod topology;

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use berth_placement::DeviceUuid;
use nvml_wrapper::{Device, Nvml, bitmasks::InitFlags, error::NvmlError};

use self::{error::Asking, events::Events, hotplug::HotPlug};
use crate::{
    GpuBackend, GpuError, GpuSession,
    backend::{Discovery, GpuEvent, Progress, Refreshed},
    inventory::{DriverFacts, Process, Sample},
};

/// NVML, loaded anew for each session.
#[derive(Debug, Clone, Default)]
pub struct NvmlBackend {
    library: Option<PathBuf>,
}

struct NvmlSession<'nvml> {
    nvml: &'nvml Nvml,
    ask: Asking,
    driver: DriverFacts,
    devices: Vec<Known<'nvml>>,
    events: Events<'nvml>,
    hotplug: HotPlug<'nvml>,
}

/// A GPU of this session.
struct Known<'nvml> {
    uuid: DeviceUuid,
    device: Device<'nvml>,
}

impl NvmlBackend {
    /// `library`: a file to load instead of searching for `libnvidia-ml.so.1`.
    pub const fn new(library: Option<PathBuf>) -> Self {
        Self { library }
    }

    fn open(&self) -> Result<Nvml, GpuError> {
        let init = |flags: Option<InitFlags>| {
            let mut builder = Nvml::builder();
            if let Some(path) = &self.library {
                builder.lib_path(OsStr::new(path));
            }
            if let Some(flags) = flags {
                builder.flags(flags);
            }
            builder.init()
        };
        // A driver without a GPU is no failure: one may be plugged in.
        match init(Some(InitFlags::NO_GPUS)) {
            // Drivers before 384 know no flags.
            Err(NvmlError::FailedToLoadSymbol(_)) => init(None),
            other => other,
        }
        .map_err(error::of_opening)
    }
}

impl GpuBackend for NvmlBackend {
    fn with_session(&mut self, progress: &Progress, body: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError> {
        progress.tick();
        let nvml = self.open()?;
        let mut session = NvmlSession::new(&nvml, Asking::new(progress.clone()))?;
        body(&mut session);
        Ok(())
    }
}

impl<'nvml> NvmlSession<'nvml> {
    fn new(nvml: &'nvml Nvml, ask: Asking) -> Result<Self, GpuError> {
        let driver = DriverFacts {
            backend: "nvml",
            driver_version: ask.must(|| nvml.sys_driver_version())?,
            nvml_version: ask.may(|| nvml.sys_nvml_version())?,
            cuda_version: ask
                .may(|| nvml.sys_cuda_driver_version())?
                .and_then(|version| u32::try_from(version).ok()),
        };
        Ok(Self {
            hotplug: HotPlug::begin(nvml, &ask),
            events: Events::none(),
            devices: Vec::new(),
            driver,
            ask,
            nvml,
        })
    }

    fn find(&self, uuid: &DeviceUuid) -> Result<&Device<'nvml>, GpuError> {
        let known = self.devices.iter().find(|known| known.uuid == *uuid);
        known.map(|known| &known.device).ok_or(GpuError::NotFound)
    }
}

impl GpuSession for NvmlSession<'_> {
    fn driver(&self) -> DriverFacts {
        self.driver.clone()
    }

    fn discover(&mut self) -> Result<Discovery, GpuError> {
        let found = facts::discover(self.nvml, &self.ask)?;
        let mut discovery = Discovery {
            devices: Vec::new(),
            unidentified: found.unidentified,
        };
        self.devices.clear();
        for (facts, device) in found.devices {
            self.devices.push(Known {
                uuid: facts.uuid.clone(),
                device,
            });
            discovery.devices.push(facts);
        }
        topology::join(&self.devices, &mut discovery.devices, &self.ask)?;
        self.hotplug
            .expect(found.count, discovery.unidentified.iter().map(|gpu| gpu.index));
        self.events = Events::of(self.nvml, &self.devices, &self.ask)?;
        Ok(discovery)
    }

    fn refresh(&mut self, device: &DeviceUuid) -> Result<Refreshed, GpuError> {
        let device = self.find(device)?;
        Ok(Refreshed {
            compute_mode: facts::compute_mode(device, &self.ask)?,
            mig: mig::report(device, &self.ask)?,
        })
    }

    fn sample(&mut self, device: &DeviceUuid) -> Result<Sample, GpuError> {
        sample::read(self.find(device)?, &self.ask)
    }

    fn processes(&mut self, device: &DeviceUuid) -> Result<Vec<Process>, GpuError> {
        processes::list(self.find(device)?, &self.ask)
    }

    fn devices_changed(&mut self) -> Result<bool, GpuError> {
        self.events.rejoin(self.nvml, &self.devices, &self.ask)?;
        self.hotplug.changed(self.nvml, &self.ask)
    }

    fn wait_event(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        if self.hotplug.told(&self.ask) {
            return Ok(Some(GpuEvent::DevicesChanged));
        }
        self.events.wait(self.nvml, &self.devices, &self.ask, timeout)
    }
}
