//! GPUs that take no pods by their health, as somebody sees them who only counts GPUs: free, as soon as no pod has them. And
//! whoever runs on a broken GPU goes soon.

use berth_placement::{DeviceState, Health, NodeName, NodeState, Room, Shape, fit};

use super::Cluster;

impl Cluster {
    /// The first of the nodes that would take the shape if its broken GPUs were well and free: who counts GPUs sees room there, now or
    /// soon.
    pub(crate) fn looks_free(&self, shape: &Shape, names: &[NodeName]) -> Option<NodeName> {
        let inner = self.inner.lock();
        let nodes = names.iter().filter_map(|name| inner.engine.node(name));
        let mut broken = nodes.filter(|node| has_broken(node));
        broken
            .find(|node| fits_by_count(node, shape))
            .map(|node| node.name.clone())
    }
}

fn is_broken(device: &DeviceState) -> bool {
    matches!(device.health, Health::Recovering | Health::Unhealthy)
}

fn has_broken(node: &NodeState) -> bool {
    node.devices.iter().any(is_broken)
}

fn fits_by_count(node: &NodeState, shape: &Shape) -> bool {
    let mut well = node.clone();
    // What is broken has no room by its daemon's word, whether a pod has it or not.
    for device in well.devices.iter_mut().filter(|device| is_broken(device)) {
        device.health = Health::Healthy;
        device.free = Room::whole(device.memory);
        device.mig.iter_mut().flatten().for_each(|slot| slot.free = true);
    }
    fit::plan(&well, shape).is_ok()
}

#[cfg(test)]
mod tests {
    use berth_runtime::ManualClock;

    use super::*;
    use crate::testing::{cluster, report, whole};

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_broken_gpu_looks_free_to_whoever_counts() {
        let [mut free, mut held, full] = [report("free", 6), report("held", 8), report("full", 8)];
        free.state.devices[7].health = Health::Unhealthy;
        held.state.devices[7].health = Health::Recovering;
        let cluster = cluster(&ManualClock::at_unix_ms(0), [full, free, held]);
        let names = ["full", "free", "held", "unknown"].map(name);
        let looks_free = |gpus, names: &[NodeName]| cluster.looks_free(&whole(gpus), names);
        assert_eq!(looks_free(2, &names), Some(name("free")));
        assert_eq!(looks_free(1, &names[2..]), Some(name("held")), "its pod will not stay");
        assert_eq!(looks_free(3, &names), None, "not so many, broken or not");
        assert_eq!(looks_free(1, &names[..1]), None);
    }
}
