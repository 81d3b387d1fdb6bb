//! What is known, and how reports change it. Pure: the supervisor feeds it, and publishes what it says.

use std::{collections::BTreeMap, sync::Arc};

use berth_placement::{DeviceUuid, Health};

use super::{AcknowledgeError, Acknowledged};
use crate::{
    GpuError,
    backend::{Discovery, Refreshed},
    health::{
        HealthConfig, HealthMachine, HealthMemory, Moment, Observation,
        xid::{self, XidClass},
    },
    inventory::{DeviceFacts, DeviceReport, DriverFacts, DriverState, Inventory, Process, Sample, Unidentified},
};

/// Readings that do not move are dated anew this often, so that a reader can tell them from forgotten ones.
const REDATE_MS: u64 = 60_000;
/// Ailing devices remembered though they are gone.
const MAX_REMEMBERED: usize = 256;

/// What the worker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    ConnectFailed(GpuError),
    /// A good session broke.
    SessionEnded(GpuError),
    /// A good session is given up for a new one.
    Outdated,
    Connected {
        driver: DriverFacts,
        discovery: Discovery,
    },
    Read {
        device: DeviceUuid,
        result: Result<Sample, GpuError>,
    },
    Refreshed {
        device: DeviceUuid,
        refreshed: Refreshed,
    },
    Processes {
        device: DeviceUuid,
        processes: Vec<Process>,
    },
    /// Without a device: the driver did not say where.
    Xid {
        device: Option<DeviceUuid>,
        code: u32,
    },
}

pub(super) struct State {
    health_config: HealthConfig,
    driver: DriverState,
    devices: Vec<Device>,
    unidentified: Vec<Unidentified>,
    /// Of the devices, and of ailing ones that are gone.
    health: BTreeMap<DeviceUuid, HealthMachine>,
    /// From before the restart: devices not seen since.
    remembered: HealthMemory,
    boot_id: Option<String>,
    driver_version: Option<String>,
    /// The driver was gone: whoever it finds when it returns has been initialised anew.
    reloaded: bool,
}

struct Device {
    facts: Arc<DeviceFacts>,
    sample: Option<Sample>,
    processes: Vec<Process>,
    processes_unix_ms: Option<u64>,
}

impl State {
    pub(super) fn new(health_config: HealthConfig, boot_id: Option<String>, remembered: HealthMemory) -> Self {
        // Unknown counts as the same: a missing id must not launder anything.
        let rebooted = matches!((&remembered.boot_id, &boot_id), (Some(then), Some(now)) if then != now);
        Self {
            health_config,
            driver: DriverState::Starting,
            devices: Vec::new(),
            unidentified: Vec::new(),
            health: BTreeMap::new(),
            boot_id,
            driver_version: remembered.driver_version.clone(),
            reloaded: rebooted,
            remembered,
        }
    }

    pub(super) fn apply(&mut self, now: Moment, report: Report) {
        match report {
            Report::ConnectFailed(error) => {
                self.note_end(&error);
                self.absent(now, &error);
            }
            Report::SessionEnded(error) => {
                tracing::warn!(reason = error.reason(), %error, "the session with the driver broke");
                self.note_end(&error);
            }
            Report::Outdated => tracing::info!("GPUs came or went; connecting anew"),
            Report::Connected { driver, discovery } => self.connected(now, driver, discovery),
            Report::Read { device, result } => self.read(now, &device, result),
            Report::Refreshed { device, refreshed } => self.refreshed(&device, refreshed),
            Report::Processes { device, processes } => self.processes(now, &device, processes),
            Report::Xid { device, code } => self.xid(now, device, code),
        }
    }

    /// The driver does not answer at all; `hanging` threads wait for it.
    pub(super) fn silence(&mut self, now: Moment, hanging: usize) {
        if hanging == 0 {
            return;
        }
        if !matches!(self.driver, DriverState::NotAnswering { .. }) {
            let message = "a call into the driver does not come back; if this lasts, reboot the machine".to_owned();
            self.driver = DriverState::NotAnswering {
                message,
                since_unix_ms: now.unix_ms,
            };
        }
        for device in &mut self.devices {
            device.sample = None;
        }
        let present: Vec<_> = self.devices.iter().map(|device| device.facts.uuid.clone()).collect();
        for uuid in present {
            self.judge(&uuid, |machine| machine.observe(now, Observation::Silence));
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        now: Moment,
        device: &DeviceUuid,
        message: &str,
    ) -> Result<Acknowledged, AcknowledgeError> {
        if let Some(memory) = self.remembered.devices.remove(device) {
            // Not seen since the restart; the operator knows why.
            let machine = HealthMachine::restore(self.health_config.clone(), now, &memory);
            self.health.insert(device.clone(), machine);
        }
        tracing::info!(gpu = %device, message, "health acknowledged");
        self.judge(device, |machine| {
            let cleared = machine.acknowledge(now, message);
            Acknowledged {
                health: machine.report(),
                cleared,
            }
        })
        .ok_or_else(|| AcknowledgeError::UnknownDevice(device.clone()))
    }

    /// Everything but the generation, which is the publisher's.
    pub(super) fn inventory(&self) -> Inventory {
        let report = |device: &Device| {
            Some(DeviceReport {
                facts: Arc::clone(&device.facts),
                health: self.health.get(&device.facts.uuid)?.report(),
                sample: device.sample.clone(),
                processes: device.processes.clone(),
                processes_unix_ms: device.processes_unix_ms,
            })
        };
        Inventory {
            generation: 0,
            driver: self.driver.clone(),
            devices: self.devices.iter().filter_map(report).collect(),
            unidentified: self.unidentified.clone(),
        }
    }

    pub(super) fn memory(&self) -> HealthMemory {
        let mut devices = self.remembered.devices.clone();
        devices.extend(
            self.health
                .iter()
                .map(|(uuid, machine)| (uuid.clone(), machine.memory())),
        );
        HealthMemory {
            boot_id: self.boot_id.clone(),
            driver_version: self.driver_version.clone(),
            devices,
        }
    }

    fn note_end(&mut self, error: &GpuError) {
        self.reloaded |= matches!(error, GpuError::NoDriver | GpuError::VersionMismatch);
    }

    fn absent(&mut self, now: Moment, error: &GpuError) {
        let message = error.to_string();
        if let DriverState::Absent {
            reason, message: told, ..
        } = &self.driver
            && *reason == error.reason()
            && *told == message
        {
            return;
        }
        tracing::warn!(reason = error.reason(), %error, "the driver cannot be used; it is tried again");
        self.driver = DriverState::Absent {
            reason: error.reason(),
            message,
            since_unix_ms: now.unix_ms,
        };
        self.devices.clear();
        self.unidentified.clear();
    }

    fn connected(&mut self, now: Moment, driver: DriverFacts, discovery: Discovery) {
        let version = Some(driver.driver_version.clone());
        let reloaded = std::mem::take(&mut self.reloaded)
            || self
                .driver_version
                .as_ref()
                .is_some_and(|_| self.driver_version != version);
        tracing::info!(
            backend = driver.backend,
            driver = driver.driver_version,
            gpus = discovery.devices.len(),
            unidentified = discovery.unidentified.len(),
            reloaded,
            "connected to the driver"
        );
        self.driver_version = version;
        self.driver = DriverState::Ready(driver);
        self.unidentified = discovery.unidentified;
        let mut before = std::mem::take(&mut self.devices);
        for facts in discovery.devices {
            let uuid = facts.uuid.clone();
            let known = before
                .iter()
                .position(|device| device.facts.uuid == uuid)
                .map(|at| before.swap_remove(at));
            self.devices.push(Device::new(facts, known));
            self.admit(now, &uuid);
        }
        if reloaded {
            for uuid in self
                .devices
                .iter()
                .map(|device| device.facts.uuid.clone())
                .collect::<Vec<_>>()
            {
                self.judge(&uuid, |machine| machine.reset(now));
            }
        }
        self.forget();
    }

    /// Gives a device its health: what is known of it, or from before the restart, or a fresh one.
    fn admit(&mut self, now: Moment, uuid: &DeviceUuid) {
        if self.health.contains_key(uuid) {
            return;
        }
        let config = self.health_config.clone();
        let machine = match self.remembered.devices.remove(uuid) {
            Some(memory) => HealthMachine::restore(config, now, &memory),
            None => HealthMachine::new(config, now),
        };
        self.health.insert(uuid.clone(), machine);
    }

    /// Of devices that are gone, only ailing ones are remembered, and not without end.
    fn forget(&mut self) {
        let devices = &self.devices;
        let present = |uuid: &DeviceUuid| devices.iter().any(|device| device.facts.uuid == *uuid);
        self.health
            .retain(|uuid, machine| present(uuid) || machine.state() != Health::Healthy);
        self.remembered
            .devices
            .retain(|_, memory| memory.state != Health::Healthy);
        while self.health.len() + self.remembered.devices.len() > MAX_REMEMBERED.max(devices.len()) {
            let gone = self.health.keys().find(|uuid| !present(uuid)).cloned();
            match gone {
                Some(uuid) => drop(self.health.remove(&uuid)),
                None => drop(self.remembered.devices.pop_first()),
            }
        }
    }

    fn read(&mut self, now: Moment, uuid: &DeviceUuid, result: Result<Sample, GpuError>) {
        match result {
            Ok(sample) => {
                self.judge(uuid, |machine| machine.observe(now, Observation::Reading(&sample)));
                if let Some(device) = self.device(uuid) {
                    device.show(now, sample);
                }
            }
            Err(error) => {
                tracing::debug!(gpu = %uuid, reason = error.reason(), %error, "a reading failed");
                self.judge(uuid, |machine| machine.observe(now, Observation::Failed(&error)));
                if let Some(device) = self.device(uuid) {
                    device.sample = None;
                }
            }
        }
    }

    fn refreshed(&mut self, uuid: &DeviceUuid, refreshed: Refreshed) {
        let Some(device) = self.device(uuid) else { return };
        let Refreshed { compute_mode, mig } = refreshed;
        if device.facts.compute_mode != compute_mode || device.facts.mig != mig {
            tracing::info!(gpu = %uuid, ?compute_mode, mig = mig.enabled, instances = mig.instances.len(), "GPU reconfigured");
            device.facts = Arc::new(DeviceFacts {
                compute_mode,
                mig,
                ..DeviceFacts::clone(&device.facts)
            });
        }
    }

    fn processes(&mut self, now: Moment, uuid: &DeviceUuid, mut processes: Vec<Process>) {
        let Some(device) = self.device(uuid) else { return };
        processes.sort();
        if device.processes != processes || due(device.processes_unix_ms, now) {
            device.processes = processes;
            device.processes_unix_ms = Some(now.unix_ms);
        }
    }

    fn xid(&mut self, now: Moment, device: Option<DeviceUuid>, code: u32) {
        let Some(uuid) = device else {
            // The sweep before this report shows who does not answer.
            let silent = self.devices.iter().filter(|device| device.sample.is_none());
            let silent: Vec<_> = silent.map(|device| device.facts.uuid.clone()).collect();
            tracing::warn!(xid = code, gpus = ?silent, "an XID without a GPU; taken to be of those that do not answer");
            for uuid in silent {
                self.judge(&uuid, |machine| machine.xid(now, code));
            }
            return;
        };
        let message = xid::describe(code);
        // A program can send its kind by the thousand.
        if xid::class(code) == XidClass::Application {
            tracing::debug!(gpu = %uuid, message, "XID");
        } else {
            tracing::warn!(gpu = %uuid, message, "XID");
        }
        self.judge(&uuid, |machine| machine.xid(now, code));
    }

    fn device(&mut self, uuid: &DeviceUuid) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.facts.uuid == *uuid)
    }

    /// Lets a device's health machine take something in, and logs what it makes of it.
    fn judge<T>(&mut self, uuid: &DeviceUuid, take: impl FnOnce(&mut HealthMachine) -> T) -> Option<T> {
        let machine = self.health.get_mut(uuid)?;
        let before = machine.state();
        let outcome = take(machine);
        let after = machine.state();
        if before != after {
            let reasons: Vec<String> = machine
                .report()
                .reasons
                .into_iter()
                .map(|reason| reason.message)
                .collect();
            tracing::warn!(gpu = %uuid, from = before.as_str(), to = after.as_str(), reasons = reasons.join("; "), "health changed");
        }
        Some(outcome)
    }
}

impl Device {
    /// A device as discovered; readings of the last session stay until there are new ones.
    fn new(facts: DeviceFacts, known: Option<Self>) -> Self {
        match known {
            // The same facts stay the same allocation: cheap to compare, and nothing to publish.
            Some(known) if *known.facts == facts => known,
            Some(known) => Self {
                facts: Arc::new(facts),
                ..known
            },
            None => Self {
                facts: Arc::new(facts),
                sample: None,
                processes: Vec::new(),
                processes_unix_ms: None,
            },
        }
    }

    fn show(&mut self, now: Moment, sample: Sample) {
        let stays = self
            .sample
            .as_ref()
            .is_some_and(|shown| shown.same_values(&sample) && !due(Some(shown.sampled_unix_ms), now));
        if !stays {
            self.sample = Some(Sample {
                sampled_unix_ms: now.unix_ms,
                ..sample
            });
        }
    }
}

/// A date that is old enough to be renewed; also one from the future, after the clock was set back.
fn due(dated_unix_ms: Option<u64>, now: Moment) -> bool {
    dated_unix_ms.is_none_or(|dated| now.unix_ms.abs_diff(dated) >= REDATE_MS)
}

#[cfg(test)]
mod tests;
