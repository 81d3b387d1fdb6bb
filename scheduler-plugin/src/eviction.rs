//! Whether evicting pods could make room on a node that refuses a shape.
//!
//! kube-scheduler asks: nodes in `FailedNodes` are tried for preemption, those in `FailedAndUnresolvableNodes` are not.

use berth_placement::{DeviceState, GpuShape, NodeState, Room, Shape, fit};

/// True where the shape would fit if nobody held anything on the node's devices.
pub(crate) fn could_help(node: &NodeState, shape: &Shape) -> bool {
    let fitting = |device: &&DeviceState| fit::device_verdict(&emptied(device), shape).is_ok();
    let devices = node.devices.iter().filter(fitting);
    let room: usize = match &shape.gpu {
        GpuShape::None => return node.reachable,
        GpuShape::Mig { profile, .. } => devices
            .flat_map(|device| device.mig.iter().flatten())
            .filter(|slot| slot.profile == *profile)
            .count(),
        GpuShape::Whole { .. } | GpuShape::Share { .. } => devices.count(),
    };
    node.reachable && u32::try_from(room).is_ok_and(|room| room >= shape.gpu.count())
}

/// The device as if all pods had gone. What nobody assigned does not go.
fn emptied(device: &DeviceState) -> DeviceState {
    let mut device = device.clone();
    device.free = Room::whole(device.memory);
    for slot in device.mig.iter_mut().flatten() {
        slot.free = true;
    }
    device
}

#[cfg(test)]
mod tests {
    use berth_placement::{Health, MemoryBytes, MigSlot};

    use super::*;
    use crate::testing::{gpu, whole};

    fn held(index: u32) -> DeviceState {
        DeviceState {
            free: Room::default(),
            ..gpu("n", index)
        }
    }

    fn node(devices: Vec<DeviceState>) -> NodeState {
        NodeState::of_devices("n".parse().unwrap(), 1, devices)
    }

    #[test]
    fn held_devices_can_be_freed_and_broken_ones_cannot() {
        let full = node(vec![held(0), held(1)]);
        assert!(could_help(&full, &whole(2)));
        assert!(!could_help(&full, &whole(3)), "there are only two");
        let mut broken = full.clone();
        broken.devices[0].health = Health::Unhealthy;
        assert!(could_help(&broken, &whole(1)));
        assert!(!could_help(&broken, &whole(2)));
        let mut used = full.clone();
        used.devices[0].out_of_band = true;
        assert!(
            !could_help(&used, &whole(2)),
            "nobody can evict a process that is no pod"
        );
        let other = whole(1).with_models(["L40S".parse().unwrap()]);
        assert!(!could_help(&full, &other));
        let mut gone = full;
        gone.reachable = false;
        assert!(!could_help(&gone, &whole(1)));
    }

    #[test]
    fn mig_instances_count_one_by_one() {
        let mut split = held(0);
        let slot = |n: u32| MigSlot {
            uuid: format!("MIG-{n}").parse().unwrap(),
            profile: "1g.10gb".parse().unwrap(),
            memory: MemoryBytes::from_gib(10),
            free: false,
        };
        split.mig = Some(vec![slot(0), slot(1)]);
        let ask = |count| Shape::gpu(GpuShape::mig("1g.10gb".parse().unwrap(), count).unwrap());
        assert!(could_help(&node(vec![split.clone()]), &ask(2)));
        assert!(!could_help(&node(vec![split.clone()]), &ask(3)));
        assert!(!could_help(&node(vec![split]), &whole(1)), "it is split");
    }
}
