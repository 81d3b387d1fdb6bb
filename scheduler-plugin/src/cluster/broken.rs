//! GPUs that take no pods by their health, as somebody sees them who only counts GPUs: free, as soon as no pod has them. And
//! whoever runs on a broken GPU goes soon.

use berth_placement::{DeviceState, Health, NodeName, NodeState, Room, Shape, fit};

use super::Cluster;

impl Cluster {
    /// The first of the nodes that does not take the shape, and would if its broken GPUs were well and free: who counts GPUs sees
    /// room there, now or soon. With each node how many GPUs its device plugin offers: where those are no more than are well,
    /// nobody counts a broken one.
    pub(crate) fn looks_free<'a>(
        &self,
        shape: &Shape,
        nodes: impl Iterator<Item = (&'a NodeName, Option<usize>)>,
    ) -> Option<NodeName> {
        let inner = self.inner.lock();
        let mut known = nodes.filter_map(|(name, offered)| Some((inner.engine.node(name)?, offered)));
        let is_one = |(node, offered): &(&NodeState, Option<usize>)| {
            let well = node.devices.iter().filter(|device| !is_broken(device)).count();
            well < node.devices.len()
                && offered.is_none_or(|offered| offered > well)
                && fit::plan(node, shape).is_err()
                && fits_by_count(node, shape)
        };
        known.find(is_one).map(|(node, _)| node.name.clone())
    }

    /// Whether the node's daemon says of any of its GPUs that it is broken.
    pub(crate) fn has_broken(&self, name: &NodeName) -> bool {
        let inner = self.inner.lock();
        let node = inner.engine.node(name);
        node.is_some_and(|node| node.devices.iter().any(is_broken))
    }
}

fn is_broken(device: &DeviceState) -> bool {
    matches!(device.health, Health::Recovering | Health::Unhealthy)
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
        let offering = |offered, gpus, names: &[NodeName]| {
            cluster.looks_free(&whole(gpus), names.iter().map(|name| (name, offered)))
        };
        let looks_free = |gpus, names| offering(Some(8), gpus, names);
        assert_eq!(looks_free(2, &names), Some(name("free")));
        assert_eq!(looks_free(1, &names[2..]), Some(name("held")), "its pod will not stay");
        assert_eq!(looks_free(3, &names), None, "not so many, broken or not");
        assert_eq!(looks_free(1, &names[..1]), None);
        assert_eq!(looks_free(1, &names[..2]), None, "one that is well is free, too");
        assert_eq!(offering(Some(7), 2, &names), None, "the device plugin knows it, too");
        assert_eq!(
            offering(None, 2, &names),
            Some(name("free")),
            "nobody says what is offered"
        );
        let broken = names.map(|name| cluster.has_broken(&name));
        assert_eq!(broken, [false, true, true, false]);
    }
}
