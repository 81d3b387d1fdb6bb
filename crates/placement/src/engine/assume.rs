//! Placements that were decided and that the node has not told yet: taken from its state, and given back.

use crate::{CpuMilli, DeviceState, Grant, MemoryBytes, NodeState, Plan, Shape};

/// Changes nothing and answers `false` where it is not all free.
pub(crate) fn take(node: &mut NodeState, shape: &Shape, plan: &Plan) -> bool {
    let cpu = node.cpu_free.map(|free| free.0.checked_sub(shape.cpu.0));
    let memory = node.memory_free.map(|free| free.checked_sub(shape.memory));
    if cpu == Some(None) || memory == Some(None) || !all(node, plan, DeviceState::take, DeviceState::give_back) {
        return false;
    }
    node.cpu_free = cpu.flatten().map(CpuMilli);
    node.memory_free = memory.flatten();
    true
}

/// Changes nothing and answers `false` where more would be free than there is.
pub(crate) fn give_back(node: &mut NodeState, shape: &Shape, plan: &Plan) -> bool {
    let cpu = node.cpu_free.map(|free| free.0.saturating_add(shape.cpu.0));
    let too_much = matches!((cpu, node.cpu_total), (Some(cpu), Some(total)) if cpu > total.0);
    if too_much || !all(node, plan, DeviceState::give_back, DeviceState::take) {
        return false;
    }
    node.cpu_free = cpu.map(CpuMilli);
    node.memory_free = node
        .memory_free
        .map(|free: MemoryBytes| free.saturating_add(shape.memory));
    true
}

type Step = fn(&mut DeviceState, &Grant) -> bool;

/// Every grant or none: what was done is undone where a later one cannot be.
fn all(node: &mut NodeState, plan: &Plan, step: Step, undo: Step) -> bool {
    for (at, grant) in plan.grants.iter().enumerate() {
        if !node.device_mut(grant).is_some_and(|device| step(device, grant)) {
            for done in plan.grants[..at].iter().rev() {
                let undone = node.device_mut(done).is_some_and(|device| undo(device, done));
                debug_assert!(undone, "BUG: what was just done cannot be undone");
            }
            return false;
        }
    }
    true
}

impl NodeState {
    fn device_mut(&mut self, grant: &Grant) -> Option<&mut DeviceState> {
        self.devices.iter_mut().find(|device| device.uuid == grant.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GpuShape, fit::plan, testing};

    #[test]
    fn what_was_taken_can_be_given_back_once() {
        let mut node = testing::node("a", 4);
        let before = node.clone();
        let mut shape = Shape::gpu(GpuShape::whole(2).unwrap());
        shape.cpu = CpuMilli(1000);
        let plan = plan(&node, &shape).unwrap();
        assert!(take(&mut node, &shape, &plan));
        assert!(!take(&mut node, &shape, &plan), "it is held");
        assert_ne!(node, before);
        assert!(give_back(&mut node, &shape, &plan));
        assert_eq!(node, before);
        assert!(!give_back(&mut node, &shape, &plan), "nothing is held");
        assert_eq!(node, before);
    }

    #[test]
    fn a_plan_of_which_a_part_is_held_takes_nothing() {
        let mut node = testing::node("a", 4);
        let pair = Shape::gpu(GpuShape::whole(2).unwrap());
        let plan = plan(&node, &pair).unwrap();
        let last = Plan {
            grants: vec![plan.grants[1].clone()],
        };
        assert!(take(&mut node, &Shape::gpu(GpuShape::whole(1).unwrap()), &last));
        let before = node.clone();
        assert!(!take(&mut node, &pair, &plan));
        assert_eq!(node, before);
    }
}
