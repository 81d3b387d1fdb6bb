//! The simulated machine: its GPUs, its driver, and what the driver has to tell.

use std::collections::{BTreeMap, VecDeque};

use berth_placement::{DeviceUuid, NodeName};

use super::{
    Command, CommandError, GpuSelector,
    gpu::SimGpu,
    profile::{MAX_GPUS, MachineType, Profile},
};
use crate::{
    backend::{Discovery, GpuEvent},
    health::xid::{self, XidClass},
    inventory::{DeviceFacts, DriverFacts, Process},
};

/// Events that nobody waits for are forgotten, oldest first.
const MAX_EVENTS: usize = 256;
const DRIVER_VERSION: &str = "580.95.05";

#[derive(Debug)]
pub(super) struct Machine {
    node: String,
    machine: &'static MachineType,
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
        let machine = profile.machine;
        let gpus = (0..profile.gpus).map(|at| SimGpu::new(node.as_str(), at, machine.slot(at))).collect();
        Self {
            node: node.to_string(),
            machine,
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
        match command {
            Command::Xid { gpu, code } => self.send_xid(gpu, *code)?,
            Command::Ecc { gpu, corrected, uncorrected } => {
                let gpu = self.find(gpu)?;
                gpu.ecc_corrected = gpu.ecc_corrected.saturating_add(*corrected);
                gpu.ecc_uncorrected = gpu.ecc_uncorrected.saturating_add(*uncorrected);
                self.tell_changed(command);
            }
            Command::Remap { gpu, pending, failed } => {
                let gpu = self.find(gpu)?;
                (gpu.rows.pending, gpu.rows.failed) = (*pending, *failed);
                self.tell_changed(command);
            }
            Command::RecoveryAction { gpu, action } => {
                self.find(gpu)?.recovery_action = *action;
                self.tell_changed(command);
            }
            Command::Throttle { gpu, reasons } => self.find(gpu)?.throttle.clone_from(reasons),
            Command::Lose { gpu } => self.find(gpu)?.lost = true,
            Command::Restore { gpu } => {
                let gpu = self.find(gpu)?;
                gpu.restore();
                self.tell_changed(command);
            }
            Command::Remove { gpu } => {
                let gpu = self.find(gpu)?;
                gpu.present = false;
                gpu.processes.clear();
                self.layout_changed();
            }
            Command::Add { gpu } => self.add(gpu.as_ref())?,
            Command::Mig { gpu, profiles } => {
                self.find(gpu)?.split(profiles.as_deref())?;
                self.tell_changed(command);
            }
            Command::Process { gpu, pid, memory, instance } => {
                let gpu = self.find(gpu)?;
                let (gpu_instance, compute_instance) = gpu.instance_ids(*instance);
                let used_memory = Some(berth_placement::MemoryBytes::new(*memory));
                gpu.processes.push(Process { pid: *pid, used_memory, gpu_instance, compute_instance });
                self.tell_changed(command);
            }
            Command::EndProcess { pid } => {
                for gpu in &mut self.gpus {
                    let before = gpu.processes.len();
                    gpu.processes.retain(|process| process.pid != *pid);
                    if gpu.processes.len() != before {
                        self.events.push_back(GpuEvent::Changed { device: gpu.uuid.clone() });
                    }
                }
            }
            Command::Unload {} => self.driver_loaded = false,
            Command::Load { version } => {
                self.driver_loaded = true;
                self.epoch += 1;
                if let Some(version) = version {
                    self.driver_version.clone_from(version);
                }
            }
            Command::Hang {} => self.hanging = true,
            Command::Answer {} => self.hanging = false,
        }
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
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
        let devices = present.iter().zip(0..).map(|(gpu, index)| self.facts(gpu, index, &present)).collect();
        Discovery { devices: with_dense_domains(devices), unidentified: Vec::new() }
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

    fn send_xid(&mut self, selector: &GpuSelector, code: u32) -> Result<(), CommandError> {
        let gpu = self.find(selector)?;
        if xid::class(code) == XidClass::Reboot {
            gpu.lost = true;
        }
        let device = Some(gpu.uuid.clone());
        self.events.push_back(GpuEvent::Xid { device, code });
        Ok(())
    }

    fn add(&mut self, selector: Option<&GpuSelector>) -> Result<(), CommandError> {
        if let Some(selector) = selector {
            self.find(selector)?.restore();
        } else {
            let position = u32::try_from(self.gpus.len()).unwrap_or(u32::MAX);
            if position >= MAX_GPUS {
                return Err(CommandError::Full(MAX_GPUS));
            }
            self.gpus.push(SimGpu::new(&self.node, position, self.machine.slot(position)));
        }
        self.layout_changed();
        Ok(())
    }

    fn layout_changed(&mut self) {
        self.layout += 1;
        self.events.push_back(GpuEvent::DevicesChanged);
    }

    /// What a driver tells by an event; silent faults are left to the sweep.
    fn tell_changed(&mut self, command: &Command) {
        let selector = match command {
            Command::Ecc { gpu, .. }
            | Command::Remap { gpu, .. }
            | Command::RecoveryAction { gpu, .. }
            | Command::Restore { gpu }
            | Command::Mig { gpu, .. }
            | Command::Process { gpu, .. } => gpu,
            _ => return,
        };
        if let Ok(gpu) = self.find(selector) {
            let device = gpu.uuid.clone();
            self.events.push_back(GpuEvent::Changed { device });
        }
    }

    fn find(&mut self, selector: &GpuSelector) -> Result<&mut SimGpu, CommandError> {
        let matches = |gpu: &&mut SimGpu| match selector {
            GpuSelector::Position(position) => gpu.position == *position,
            GpuSelector::Uuid(uuid) => gpu.uuid == *uuid,
        };
        self.gpus.iter_mut().find(matches).ok_or_else(|| CommandError::NoSuchGpu(selector.clone()))
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
