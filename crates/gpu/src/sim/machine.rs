//! The simulated machine: its GPUs, its driver, and what the driver has to tell.

use std::collections::{BTreeMap, VecDeque};

use berth_placement::{DeviceUuid, MemoryBytes, NodeName};

use super::{
    Command, CommandError, GpuSelector,
    gpu::SimGpu,
    profile::{MAX_GPUS, MachineType, Profile},
};
use crate::{
    backend::{Discovery, GpuEvent},
    health::xid::{self, XidClass},
    inventory::{DeviceFacts, DriverFacts},
};

/// Events that nobody waits for are forgotten, oldest first.
const MAX_EVENTS: usize = 256;
const DRIVER_VERSION: &str = "580.95.05";

#[derive(Debug)]
pub(super) struct Machine {
    node: String,
    model: &'static MachineType,
    gpus: Vec<SimGpu>,
    events: VecDeque<GpuEvent>,
    pub(super) driver_loaded: bool,
    driver_version: String,
    /// Counts loads of the driver: a session of an earlier one is dead.
    pub(super) epoch: u64,
    /// Counts GPUs that come and go.
    pub(super) layout: u64,
    pub(super) hanging: bool,
}

impl Machine {
    pub(super) fn new(profile: &Profile, node: &NodeName) -> Self {
        let gpus = (0..profile.gpus)
            .map(|at| SimGpu::new(node.as_str(), at, profile.machine.slot(at)))
            .collect();
        Self {
            node: node.to_string(),
            model: profile.machine,
            gpus,
            events: VecDeque::new(),
            driver_loaded: true,
            driver_version: DRIVER_VERSION.to_owned(),
            epoch: 0,
            layout: 0,
            hanging: false,
        }
    }

    pub(super) fn obey(&mut self, command: &Command) -> Result<(), CommandError> {
        // What a driver tells by an event; silent faults are left to the sweep.
        let told = match command {
            Command::Xid { gpu, code } => Some(self.send_xid(gpu, *code)?),
            Command::Ecc {
                gpu,
                corrected,
                uncorrected,
            } => Some(self.change(gpu, |gpu| {
                gpu.ecc_corrected = gpu.ecc_corrected.saturating_add(*corrected);
                gpu.ecc_uncorrected = gpu.ecc_uncorrected.saturating_add(*uncorrected);
            })?),
            Command::Remap { gpu, pending, failed } => {
                Some(self.change(gpu, |gpu| (gpu.rows.pending, gpu.rows.failed) = (*pending, *failed))?)
            }
            Command::RecoveryAction { gpu, action } => Some(self.change(gpu, |gpu| gpu.recovery_action = *action)?),
            Command::Throttle { gpu, reasons } => {
                self.find(gpu)?.throttle.clone_from(reasons);
                None
            }
            Command::Lose { gpu } => {
                self.find(gpu)?.lost = true;
                None
            }
            Command::Restore { gpu } => Some(self.change(gpu, SimGpu::restore)?),
            Command::Remove { gpu } => Some(self.remove(gpu)?),
            Command::Add { gpu } => Some(self.add(gpu.as_ref())?),
            Command::Mig { gpu, profiles } => {
                self.find(gpu)?.split(profiles.as_deref())?;
                Some(self.change(gpu, |_| ())?)
            }
            Command::Process {
                gpu,
                pid,
                memory,
                instance,
            } => Some(self.change(gpu, |gpu| gpu.start(*pid, MemoryBytes::new(*memory), *instance))?),
            Command::EndProcess { pid } => {
                let left = self
                    .gpus
                    .iter_mut()
                    .filter_map(|gpu| gpu.end(*pid).then(|| changed(gpu)));
                self.events.extend(left);
                None
            }
            Command::Unload {} => {
                self.driver_loaded = false;
                None
            }
            Command::Load { version } => {
                self.load(version.as_deref());
                None
            }
            Command::Hang {} => {
                self.hanging = true;
                None
            }
            Command::Answer {} => {
                self.hanging = false;
                None
            }
        };
        self.events.extend(told);
        let surplus = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..surplus);
        Ok(())
    }

    pub(super) fn next_event(&mut self) -> Option<GpuEvent> {
        self.events.pop_front()
    }

    pub(super) fn drop_events(&mut self) {
        self.events.clear();
    }

    pub(super) fn driver(&self) -> DriverFacts {
        DriverFacts {
            backend: "simulated",
            driver_version: self.driver_version.clone(),
            nvml_version: Some(format!("13.{}", self.driver_version)),
            cuda_version: Some(13_000),
        }
    }

    /// A GPU that the driver knows, whether it answers or not.
    pub(super) fn known(&self, uuid: &DeviceUuid) -> Option<&SimGpu> {
        self.gpus.iter().find(|gpu| gpu.present && gpu.uuid == *uuid)
    }

    pub(super) fn discover(&self) -> Discovery {
        let present: Vec<&SimGpu> = self.gpus.iter().filter(|gpu| gpu.present).collect();
        let devices = present
            .iter()
            .zip(0..)
            .map(|(gpu, index)| self.facts(gpu, index, &present))
            .collect();
        Discovery {
            devices: with_dense_domains(devices),
            unidentified: Vec::new(),
        }
    }

    fn facts(&self, gpu: &SimGpu, index: u32, present: &[&SimGpu]) -> DeviceFacts {
        let others = present.iter().filter(|other| other.position != gpu.position);
        let (peers, domains): (Vec<_>, Vec<_>) = others.filter_map(|other| gpu.links_to(other)).unzip();
        DeviceFacts {
            nvlink_peers: peers,
            nvlink_domain: domains.first().copied(),
            fabric: gpu.fabric(&self.node),
            ..gpu.facts(index)
        }
    }

    fn send_xid(&mut self, selector: &GpuSelector, code: u32) -> Result<GpuEvent, CommandError> {
        let gpu = self.find(selector)?;
        if xid::class(code) == XidClass::Reboot {
            gpu.lost = true;
        }
        let device = Some(gpu.uuid.clone());
        Ok(GpuEvent::Xid { device, code })
    }

    fn change(&mut self, selector: &GpuSelector, change: impl FnOnce(&mut SimGpu)) -> Result<GpuEvent, CommandError> {
        let gpu = self.find(selector)?;
        change(gpu);
        Ok(changed(gpu))
    }

    fn remove(&mut self, selector: &GpuSelector) -> Result<GpuEvent, CommandError> {
        self.find(selector)?.unplug();
        self.layout += 1;
        Ok(GpuEvent::DevicesChanged)
    }

    fn add(&mut self, selector: Option<&GpuSelector>) -> Result<GpuEvent, CommandError> {
        if let Some(selector) = selector {
            self.find(selector)?.restore();
        } else {
            let position = u32::try_from(self.gpus.len()).unwrap_or(u32::MAX);
            if position >= MAX_GPUS {
                return Err(CommandError::Full(MAX_GPUS));
            }
            self.gpus
                .push(SimGpu::new(&self.node, position, self.model.slot(position)));
        }
        self.layout += 1;
        Ok(GpuEvent::DevicesChanged)
    }

    fn load(&mut self, version: Option<&str>) {
        self.driver_loaded = true;
        self.epoch += 1;
        if let Some(version) = version {
            version.clone_into(&mut self.driver_version);
        }
    }

    fn find(&mut self, selector: &GpuSelector) -> Result<&mut SimGpu, CommandError> {
        let matches = |gpu: &&mut SimGpu| match selector {
            GpuSelector::Position(position) => gpu.position == *position,
            GpuSelector::Uuid(uuid) => gpu.uuid == *uuid,
        };
        self.gpus
            .iter_mut()
            .find(matches)
            .ok_or_else(|| CommandError::NoSuchGpu(selector.clone()))
    }
}

fn changed(gpu: &SimGpu) -> GpuEvent {
    GpuEvent::Changed {
        device: gpu.uuid.clone(),
    }
}

/// Numbers the NVLink domains from zero in the order of the devices.
fn with_dense_domains(mut devices: Vec<DeviceFacts>) -> Vec<DeviceFacts> {
    let mut numbers = BTreeMap::new();
    for device in &mut devices {
        if let Some(domain) = &mut device.nvlink_domain {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *domain = *numbers.entry(*domain).or_insert(next);
        }
    }
    devices
}
