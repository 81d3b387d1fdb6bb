//! Whether a shape fits a node, which devices it would get, and why not.
//!
//! Owns feasibility and the node-level choice of devices. Must not know how nodes are ranked against each other.

mod choose;
mod refusals;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::refusals::Refusals;

use crate::{
    ComputeMode, DeviceState, DeviceUuid, GpuShape, Health, MigProfile, NodeState, Reason, Refusal, Room, Shape,
    ShareSize,
};

/// One device's part in a plan or in a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The GPU; for a MIG instance its parent.
    pub device: DeviceUuid,
    pub size: GrantSize,
}

/// How much of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantSize {
    Whole,
    Share(Room),
    Mig { instance: DeviceUuid, profile: MigProfile },
}

/// The devices for one pod on one node: empty for a shape without GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub grants: Vec<Grant>,
}

/// The answer for one node in full: the plan or why there is none, and a verdict for each device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    pub plan: Result<Plan, Refusal>,
    pub devices: Vec<DeviceVerdict>,
}

/// Whether a device could take a part of the shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceVerdict {
    pub uuid: DeviceUuid,
    pub index: u32,
    pub outcome: Result<(), Refusal>,
}

/// The devices that the shape gets on this node, or why it gets none.
pub fn plan(node: &NodeState, shape: &Shape) -> Result<Plan, Refusal> {
    plan_preferring(node, shape, &[])
}

/// As [`plan`], but on exactly `preferred` (GPUs or MIG instances) where that fits; otherwise as if nothing was preferred.
pub fn plan_preferring(node: &NodeState, shape: &Shape, preferred: &[DeviceUuid]) -> Result<Plan, Refusal> {
    node_verdict(node, shape)?;
    if shape.gpu == GpuShape::None {
        return Ok(Plan::default());
    }
    let fitting: Vec<&DeviceState> = node
        .devices
        .iter()
        .filter(|device| device_verdict(device, shape).is_ok())
        .collect();
    choose::choose(&fitting, &shape.gpu, preferred).ok_or_else(|| refusals::shortage(node, shape))
}

/// As [`plan`], with a verdict for each device. Costs more: for people, not for the path of a decision.
pub fn explain(node: &NodeState, shape: &Shape) -> NodeVerdict {
    let devices = node
        .devices
        .iter()
        .map(|device| DeviceVerdict {
            uuid: device.uuid.clone(),
            index: device.index,
            outcome: device_verdict(device, shape)
                .map_err(|reason| Refusal::new(reason, sentence(device, shape, reason))),
        })
        .collect();
    NodeVerdict {
        plan: plan(node, shape),
        devices,
    }
}

/// What does not depend on devices.
fn node_verdict(node: &NodeState, shape: &Shape) -> Result<(), Refusal> {
    if !node.reachable {
        return Err(Refusal::new(
            Reason::NodeUnreachable,
            "the node's daemon does not answer",
        ));
    }
    if let Some(free) = node.cpu_free.filter(|free| *free < shape.cpu) {
        return Err(Refusal::new(
            Reason::InsufficientCpu,
            format!("{} asked, {free} free", shape.cpu),
        ));
    }
    if let Some(free) = node.memory_free.filter(|free| *free < shape.memory) {
        return Err(Refusal::new(
            Reason::InsufficientHostMemory,
            format!("{} asked, {free} free", shape.memory),
        ));
    }
    Ok(())
}

/// Whether this device could take one unit of the shape: one GPU, one share, one instance.
///
/// Lasting reasons come before passing ones, so that the answer tells the most that waiting cannot mend.
pub fn device_verdict(device: &DeviceState, shape: &Shape) -> Result<(), Reason> {
    if !shape.accepts(&device.model) {
        return Err(Reason::ModelMismatch);
    }
    match device.health {
        Health::Unhealthy => return Err(Reason::DeviceUnhealthy),
        Health::Recovering => return Err(Reason::DeviceRecovering),
        Health::Healthy | Health::Suspect => {}
    }
    if !device.schedulable {
        return Err(Reason::DeviceCordoned);
    }
    if device.compute_mode == ComputeMode::Prohibited {
        return Err(Reason::ComputeProhibited);
    }
    size_verdict(device, &shape.gpu)?;
    if device.out_of_band {
        Err(Reason::OutOfBandUse)
    } else {
        Ok(())
    }
}

fn size_verdict(device: &DeviceState, gpu: &GpuShape) -> Result<(), Reason> {
    match (gpu, &device.mig) {
        (GpuShape::None, _) => Ok(()),
        (GpuShape::Mig { profile, .. }, Some(slots)) => {
            let mut of_profile = slots.iter().filter(|slot| slot.profile == *profile).peekable();
            if of_profile.peek().is_none() {
                return Err(Reason::NoSuchMigProfile);
            }
            if of_profile.any(|slot| slot.free) {
                Ok(())
            } else {
                Err(Reason::MigInstancesHeld)
            }
        }
        (GpuShape::Mig { .. }, None) => Err(Reason::MigDisabled),
        (GpuShape::Whole { .. } | GpuShape::Share { .. }, Some(_)) => Err(Reason::MigEnabled),
        (GpuShape::Whole { .. }, None) => {
            if device.is_untouched() {
                Ok(())
            } else {
                Err(Reason::DeviceHeld)
            }
        }
        (GpuShape::Share { size, .. }, None) => {
            if device.compute_mode == ComputeMode::ExclusiveProcess {
                return Err(Reason::ExclusiveProcess);
            }
            let (milli, memory) = size.on(device.memory);
            let no_memory = memory > device.free.memory;
            // Who named memory is told of memory.
            if no_memory && matches!(size, ShareSize::Memory(_)) {
                Err(Reason::InsufficientMemory)
            } else if milli > device.free.milli {
                Err(Reason::InsufficientMilli)
            } else if no_memory {
                Err(Reason::InsufficientMemory)
            } else {
                Ok(())
            }
        }
    }
}

fn sentence(device: &DeviceState, shape: &Shape, reason: Reason) -> String {
    match reason {
        Reason::ModelMismatch => format!("it is a {}", device.model),
        Reason::InsufficientMilli | Reason::InsufficientMemory => {
            format!(
                "{} GPU and {} free, {} asked",
                device.free.milli, device.free.memory, shape.gpu
            )
        }
        Reason::DeviceHeld => format!("{} GPU and {} of it free", device.free.milli, device.free.memory),
        Reason::OutOfBandUse => "a process runs there that nobody assigned".to_owned(),
        Reason::MigEnabled => "it is split by MIG and given out by instances only".to_owned(),
        Reason::MigDisabled => "it is not split by MIG".to_owned(),
        Reason::NoSuchMigProfile => "no instance of that profile exists there".to_owned(),
        Reason::MigInstancesHeld => "every instance of that profile is held".to_owned(),
        Reason::ExclusiveProcess => "its compute mode allows one process only".to_owned(),
        Reason::ComputeProhibited => "its compute mode allows no compute".to_owned(),
        Reason::DeviceCordoned => "an operator took it out of scheduling".to_owned(),
        Reason::DeviceUnhealthy | Reason::DeviceRecovering => format!("its health is {}", device.health.as_str()),
        _ => String::new(),
    }
}

impl Grant {
    /// What it takes of a device with this much memory, where the device is not split by MIG.
    pub fn room(&self, device_memory: crate::MemoryBytes) -> Room {
        match &self.size {
            GrantSize::Whole => Room::whole(device_memory),
            GrantSize::Share(room) => *room,
            GrantSize::Mig { .. } => Room::default(),
        }
    }
}

impl fmt::Display for Grant {
    /// `GPU-…`, `GPU-…: 0.25`, `MIG-… (1g.10gb)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.size {
            GrantSize::Whole => write!(f, "{}", self.device),
            GrantSize::Share(room) => write!(f, "{}: {} with {}", self.device, room.milli, room.memory),
            GrantSize::Mig { instance, profile } => write!(f, "{instance} ({profile})"),
        }
    }
}

impl NodeState {
    /// Takes a plan's devices out of what is free. Changes nothing and answers `false` where they are not free.
    #[must_use]
    pub fn take(&mut self, plan: &Plan) -> bool {
        let mut devices = self.devices.clone();
        for grant in &plan.grants {
            let Some(device) = devices.iter_mut().find(|device| device.uuid == grant.device) else {
                return false;
            };
            if !device.take(grant) {
                return false;
            }
        }
        self.devices = devices;
        true
    }

    /// The inverse of [`NodeState::take`]. Changes nothing and answers `false` where more would be free than there is.
    #[must_use]
    pub fn give_back(&mut self, plan: &Plan) -> bool {
        let mut devices = self.devices.clone();
        for grant in &plan.grants {
            let Some(device) = devices.iter_mut().find(|device| device.uuid == grant.device) else {
                return false;
            };
            if !device.give_back(grant) {
                return false;
            }
        }
        self.devices = devices;
        true
    }
}

impl DeviceState {
    /// Takes a grant out of what is free. Changes nothing and answers `false` where that is not free.
    #[must_use]
    pub fn take(&mut self, grant: &Grant) -> bool {
        match (&grant.size, &mut self.mig) {
            (GrantSize::Mig { instance, .. }, Some(slots)) => slots
                .iter_mut()
                .find(|slot| slot.uuid == *instance && slot.free)
                .map(|slot| slot.free = false)
                .is_some(),
            (GrantSize::Mig { .. }, None) | (_, Some(_)) => false,
            (GrantSize::Whole | GrantSize::Share(_), None) => self
                .free
                .checked_sub(grant.room(self.memory))
                .map(|free| self.free = free)
                .is_some(),
        }
    }

    /// The inverse of [`DeviceState::take`]. Changes nothing and answers `false` where more would be free than there is.
    #[must_use]
    pub fn give_back(&mut self, grant: &Grant) -> bool {
        match (&grant.size, &mut self.mig) {
            (GrantSize::Mig { instance, .. }, Some(slots)) => slots
                .iter_mut()
                .find(|slot| slot.uuid == *instance && !slot.free)
                .map(|slot| slot.free = true)
                .is_some(),
            (GrantSize::Mig { .. }, None) | (_, Some(_)) => false,
            (GrantSize::Whole | GrantSize::Share(_), None) => {
                let whole = Room::whole(self.memory);
                let free = self.free.checked_add(grant.room(self.memory));
                let free = free.filter(|free| whole.checked_sub(*free).is_some());
                free.map(|free| self.free = free).is_some()
            }
        }
    }
}
