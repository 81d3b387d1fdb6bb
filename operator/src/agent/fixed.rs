//! GPUs that the configuration lists: where nobody finds them, the list says what there is. Pure.
//!
//! Their nodes carry the label of the instance type by hand, and which node has how many is not known: what is free is one sum.

use std::collections::BTreeMap;

use berth_sis::wire::{Gpu, GpuUsage, NodeType};

use super::inventory::{Allocation, Capacity};

/// The list as it is told, with how many of each type there can be.
pub fn gpus(listed: &[Gpu]) -> Vec<Gpu> {
    let mut gpus = listed.to_vec();
    for gpu in &mut gpus {
        let capacity = i64::from(capacity_of(gpu));
        for it in &mut gpu.instance_types {
            it.node_type.get_or_insert(NodeType::Single);
            it.max_instances = Some(capacity / it.gpu_count.max(1));
        }
    }
    gpus
}

pub fn usage(listed: &[Gpu], allocation: &Allocation) -> BTreeMap<String, GpuUsage> {
    let usage = |gpu: &Gpu| {
        let capacity = capacity_of(gpu);
        let allocated = held(gpu, allocation);
        let usage = GpuUsage {
            available: capacity.saturating_sub(allocated).into(),
            capacity: capacity.into(),
            allocated: allocated.into(),
        };
        (gpu.name.clone(), usage)
    };
    listed.iter().map(usage).collect()
}

pub fn capacity(listed: &[Gpu], allocation: &Allocation) -> Capacity {
    let sum = |gpu: &Gpu| (gpu.name.clone(), capacity_of(gpu).saturating_sub(held(gpu, allocation)));
    Capacity::of_sums(listed.iter().map(sum))
}

fn capacity_of(gpu: &Gpu) -> u32 {
    gpu.capacity
        .and_then(|capacity| u32::try_from(capacity).ok())
        .unwrap_or_default()
}

fn held(gpu: &Gpu, allocation: &Allocation) -> u32 {
    allocation.get(&gpu.name).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_is_what_there_is_and_requests_hold_of_it() {
        let listed = json!([{"name": "H100", "capacity": 12, "instanceTypes": [
            {"name": "NCP.GPU.H100_1x", "value": "NCP.GPU.H100", "default": true, "gpuCount": 1},
            {"name": "NCP.GPU.H100_8x", "value": "NCP.GPU.H100", "gpuCount": 8}]}, {"name": "L40"}]);
        let listed: Vec<Gpu> = serde_json::from_value(listed).unwrap();
        let told = gpus(&listed);
        let most: Vec<_> = told[0].instance_types.iter().map(|it| it.max_instances).collect();
        assert_eq!(most, [Some(12), Some(1)]);
        assert_eq!(told[0].instance_types[0].node_type, Some(NodeType::Single));
        let allocation = Allocation::from([("H100".to_owned(), 3)]);
        let usage = usage(&listed, &allocation);
        let numbers = |gpu: &str| (usage[gpu].available, usage[gpu].capacity, usage[gpu].allocated);
        assert_eq!((numbers("H100"), numbers("L40")), ((9, 12, 3), (0, 0, 0)));
        let capacity = capacity(&listed, &allocation);
        assert_eq!((capacity.fits("H100", 1), capacity.fits("H100", 8)), (9, 1));
        assert_eq!((capacity.fits("L40", 1), capacity.fits("A100", 1)), (0, 0));
    }
}
