//! Why too few devices of a node fit, in a sentence; for many nodes without writing the same sentence twice.

use std::{cmp::Reverse, collections::HashMap};

use super::{device_verdict, node_verdict};
use crate::{GpuShape, NodeState, Reason, Refusal, Shape};

/// How many devices of a node fit, and how many do not for which reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tally {
    fit: usize,
    /// By [`Reason`].
    refusing: [u16; Reason::ALL.len()],
    devices: usize,
}

impl Tally {
    fn of(node: &NodeState, shape: &Shape) -> Self {
        let mut tally = Self {
            fit: 0,
            refusing: [0; Reason::ALL.len()],
            devices: node.devices.len(),
        };
        for device in &node.devices {
            match device_verdict(device, shape) {
                Ok(()) => tally.fit += 1,
                Err(reason) => {
                    let count = &mut tally.refusing[reason as usize];
                    *count = count.saturating_add(1);
                }
            }
        }
        tally
    }

    /// The commonest reason where no device fits.
    fn refusal(&self, shape: &Shape) -> Refusal {
        if self.devices == 0 {
            return Refusal::new(Reason::NoDevices, "the node has no GPU");
        }
        let mut reasons: Vec<(Reason, u16)> = Reason::ALL
            .iter()
            .map(|reason| (*reason, self.refusing[*reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect();
        reasons.sort_by_key(|(reason, count)| (Reverse(*count), *reason));
        let list: Vec<_> = reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!(": {}", list.join(", "))
        };
        let (fit, devices) = (self.fit, self.devices);
        let message = if fit == devices {
            format!("{} asked, the node has only {devices} of them", shape.gpu)
        } else {
            format!("{} asked, {fit} of {devices} devices fit{detail}", shape.gpu)
        };
        let reason = match reasons.first() {
            Some((reason, _)) if fit == 0 => *reason,
            _ => Reason::InsufficientDevices,
        };
        Refusal::new(reason, message)
    }
}

pub(super) fn shortage(node: &NodeState, shape: &Shape) -> Refusal {
    Tally::of(node, shape).refusal(shape)
}

/// Says of many nodes why they refuse one shape: the same words as [`super::plan`], and much cheaper.
#[derive(Debug)]
pub struct Refusals<'a> {
    shape: &'a Shape,
    written: HashMap<Tally, Refusal>,
}

impl<'a> Refusals<'a> {
    pub fn new(shape: &'a Shape) -> Self {
        Self {
            shape,
            written: HashMap::new(),
        }
    }

    /// `None` where the shape fits.
    pub fn of(&mut self, node: &NodeState) -> Option<Refusal> {
        if let Err(refusal) = node_verdict(node, self.shape) {
            return Some(refusal);
        }
        if self.shape.gpu == GpuShape::None {
            return None;
        }
        let tally = Tally::of(node, self.shape);
        let wanted = self.shape.gpu.count() as usize;
        let units = match &self.shape.gpu {
            GpuShape::Mig { profile, .. } => node
                .devices
                .iter()
                .filter(|device| device_verdict(device, self.shape).is_ok())
                .flat_map(|device| device.mig.iter().flatten())
                .filter(|slot| slot.free && slot.profile == *profile)
                .count(),
            _ => tally.fit,
        };
        if units >= wanted {
            return None;
        }
        let refusal = self
            .written
            .entry(tally)
            .or_insert_with_key(|tally| tally.refusal(self.shape));
        Some(refusal.clone())
    }
}
