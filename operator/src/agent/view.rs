//! What the agent tells of the cluster at one moment: shapes, usage, capacity. Pure; made anew from every change.

use std::{collections::BTreeMap, sync::Arc};

use berth_sis::wire::{Gpu, GpuUsage};

use super::{
    fixed,
    inventory::{Allocation, Capacity, Inventory},
    settings::Settings,
    shapes,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub inventory: Arc<Inventory>,
    pub gpus: Vec<Gpu>,
    pub usage: BTreeMap<String, GpuUsage>,
    pub capacity: Capacity,
}

impl View {
    pub fn of(inventory: &Arc<Inventory>, settings: &Settings, allocation: &Allocation) -> Self {
        let provider = &settings.config.cluster.cloud_provider;
        let listed = &settings.config.agent.static_gpus;
        let (gpus, usage) = if listed.is_empty() {
            let found = shapes::gpus(inventory, provider, settings.multi_node());
            (found, inventory.usage(allocation))
        } else {
            (fixed::gpus(listed), fixed::usage(listed, allocation))
        };
        Self {
            inventory: Arc::clone(inventory),
            gpus,
            usage,
            capacity: capacity(inventory, settings, allocation),
        }
    }

    /// Why there is nothing to offer, if so.
    pub fn trouble(&self) -> Option<(&'static str, String)> {
        if !self.gpus.is_empty() {
            return None;
        }
        let unclassified = &self.inventory.unclassified;
        let text = match unclassified.first_key_value() {
            None => {
                "no node has a GPU: is the NVIDIA GPU Operator (or a device plugin and berthd) installed?".to_owned()
            }
            Some((node, why)) => {
                let nodes = unclassified.len();
                format!("{nodes} nodes have GPUs and none of them can be offered; {node}: {why}")
            }
        };
        Some(("NoGpu", text))
    }
}

/// What can be had now: of what the configuration lists, or of what was found.
pub(crate) fn capacity(inventory: &Inventory, settings: &Settings, allocation: &Allocation) -> Capacity {
    match &settings.config.agent.static_gpus[..] {
        [] => inventory.capacity(allocation),
        listed => fixed::capacity(listed, allocation),
    }
}
