//! What fits where: one promise of the choice in each test.

use super::*;
use crate::{MemoryBytes, MigSlot, MilliGpu};

fn gpu(index: u32) -> DeviceState {
    let memory = MemoryBytes::from_gib(80);
    DeviceState {
        uuid: format!("GPU-{index}").parse().unwrap(),
        index,
        model: "H100".parse().unwrap(),
        memory,
        compute_mode: ComputeMode::Default,
        numa_node: None,
        nvlink_domain: None,
        health: Health::Healthy,
        schedulable: true,
        out_of_band: false,
        mig: None,
        free: Room::whole(memory),
    }
}

fn node(devices: Vec<DeviceState>) -> NodeState {
    NodeState::of_devices("n".parse().unwrap(), 1, devices)
}

fn whole(count: u32) -> Shape {
    Shape::gpu(GpuShape::whole(count).unwrap())
}

fn share(milli: u32) -> Shape {
    Shape::gpu(GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap())
}

fn chosen(node: &NodeState, shape: &Shape) -> Vec<u32> {
    let plan = plan(node, shape).unwrap();
    plan.grants
        .iter()
        .map(|grant| node.device(&grant.device).unwrap().index)
        .collect()
}

#[test]
fn several_gpus_come_from_the_tightest_nvlink_domain_that_holds_them() {
    let mut devices: Vec<_> = (0..8).map(gpu).collect();
    for device in &mut devices {
        device.nvlink_domain = Some(u32::from(device.index >= 5));
    }
    let node = node(devices);
    assert_eq!(chosen(&node, &whole(2)), [5, 6]);
    assert_eq!(chosen(&node, &whole(4)), [0, 1, 2, 3]);
    assert_eq!(chosen(&node, &whole(6)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn one_gpu_leaves_nvlink_pairs_alone() {
    let mut devices: Vec<_> = (0..4).map(gpu).collect();
    devices[0].nvlink_domain = Some(0);
    devices[1].nvlink_domain = Some(0);
    let node = node(devices);
    assert_eq!(chosen(&node, &whole(1)), [2]);
    assert_eq!(chosen(&node, &whole(2)), [0, 1]);
}

#[test]
fn gpus_of_one_pod_share_a_numa_node_and_a_model_where_they_can() {
    let mut devices: Vec<_> = (0..4).map(gpu).collect();
    for device in &mut devices {
        device.numa_node = Some(device.index % 2);
    }
    assert_eq!(chosen(&node(devices.clone()), &whole(2)), [0, 2]);
    devices[2].model = "A100".parse().unwrap();
    assert_eq!(chosen(&node(devices), &whole(2)), [1, 3]);
}

#[test]
fn suspect_devices_are_taken_last() {
    let mut devices: Vec<_> = (0..3).map(gpu).collect();
    devices[0].health = Health::Suspect;
    let node = node(devices);
    assert_eq!(chosen(&node, &whole(2)), [1, 2]);
    assert_eq!(chosen(&node, &whole(3)), [0, 1, 2]);
    assert_eq!(chosen(&node, &share(300)), [1]);
}

#[test]
fn a_share_goes_where_the_least_is_left() {
    let mut devices: Vec<_> = (0..3).map(gpu).collect();
    devices[1].free = Room {
        milli: MilliGpu::new(400),
        memory: MemoryBytes::from_gib(32),
    };
    devices[2].free = Room {
        milli: MilliGpu::new(700),
        memory: MemoryBytes::from_gib(56),
    };
    let node = node(devices);
    assert_eq!(chosen(&node, &share(300)), [1]);
    assert_eq!(chosen(&node, &share(500)), [2]);
    assert_eq!(chosen(&node, &share(800)), [0]);
}

#[test]
fn a_share_needs_both_thousandths_and_memory() {
    let mut device = gpu(0);
    device.free = Room {
        milli: MilliGpu::new(900),
        memory: MemoryBytes::from_gib(10),
    };
    let node = node(vec![device]);
    let shape = Shape::gpu(GpuShape::share(None, Some(MemoryBytes::from_gib(20)), 1).unwrap());
    assert_eq!(plan(&node, &shape).unwrap_err().reason, Reason::InsufficientMemory);
    let shape = Shape::gpu(GpuShape::share(Some(MilliGpu::new(100)), None, 1).unwrap());
    assert!(plan(&node, &shape).is_ok());
}

#[test]
fn who_asks_for_more_memory_than_there_is_hears_of_memory() {
    let node = node(vec![gpu(0)]);
    let shape = Shape::gpu(GpuShape::share(None, Some(MemoryBytes::from_gib(500)), 1).unwrap());
    assert_eq!(plan(&node, &shape).unwrap_err().reason, Reason::InsufficientMemory);
}

#[test]
fn a_preference_is_followed_exactly_or_not_at_all() {
    let node = node((0..4).map(gpu).collect());
    let prefer = |indexes: &[u32]| -> Vec<DeviceUuid> {
        indexes
            .iter()
            .map(|index| format!("GPU-{index}").parse().unwrap())
            .collect()
    };
    let indexes = |plan: Plan| -> Vec<String> { plan.grants.iter().map(|grant| grant.device.to_string()).collect() };
    assert_eq!(
        indexes(plan_preferring(&node, &whole(2), &prefer(&[3, 1])).unwrap()),
        ["GPU-1", "GPU-3"]
    );
    assert_eq!(
        indexes(plan_preferring(&node, &whole(2), &prefer(&[3, 9])).unwrap()),
        ["GPU-0", "GPU-1"]
    );
}

#[test]
fn mig_instances_come_from_the_fullest_parent() {
    let slots = |parent: u32, free: &[bool]| -> Option<Vec<MigSlot>> {
        Some(
            free.iter()
                .enumerate()
                .map(|(at, free)| MigSlot {
                    uuid: format!("MIG-{parent}-{at}").parse().unwrap(),
                    profile: "1g.10gb".parse().unwrap(),
                    memory: MemoryBytes::from_gib(10),
                    free: *free,
                })
                .collect(),
        )
    };
    let mut devices: Vec<_> = (0..3).map(gpu).collect();
    devices[0].mig = slots(0, &[true, true, true]);
    devices[1].mig = slots(1, &[false, true, true]);
    let node = node(devices);
    let mig = |count| Shape::gpu(GpuShape::mig("1g.10gb".parse().unwrap(), count).unwrap());
    assert_eq!(chosen(&node, &mig(2)), [1, 1]);
    assert_eq!(chosen(&node, &mig(3)), [0, 0, 0]);
    assert_eq!(plan(&node, &mig(6)).unwrap_err().reason, Reason::InsufficientDevices);
    assert_eq!(chosen(&node, &whole(1)), [2]);
}

#[test]
fn each_no_names_its_reason_per_device() {
    let mut devices: Vec<_> = (0..6).map(gpu).collect();
    devices[0].health = Health::Unhealthy;
    devices[1].schedulable = false;
    devices[2].out_of_band = true;
    devices[3].compute_mode = ComputeMode::Prohibited;
    devices[4].mig = Some(Vec::new());
    devices[5].model = "L40S".parse().unwrap();
    let node = node(devices);
    let shape = whole(1).with_models(["H100".parse().unwrap()]);
    let reasons: Vec<_> = explain(&node, &shape)
        .devices
        .into_iter()
        .map(|device| device.outcome.unwrap_err().reason)
        .collect();
    assert_eq!(
        reasons,
        [
            Reason::DeviceUnhealthy,
            Reason::DeviceCordoned,
            Reason::OutOfBandUse,
            Reason::ComputeProhibited,
            Reason::MigEnabled,
            Reason::ModelMismatch
        ]
    );
    let refusal = plan(&node, &shape).unwrap_err();
    assert_eq!(
        refusal.message.split(':').next().unwrap(),
        "1 GPU asked, 0 of 6 devices fit"
    );
}

#[test]
fn a_plan_that_was_taken_is_not_free_again() {
    let mut node = node((0..2).map(gpu).collect());
    let first = plan(&node, &share(600)).unwrap();
    assert!(node.take(&first));
    assert_eq!(chosen(&node, &share(400)), [0]);
    assert_eq!(chosen(&node, &share(500)), [1]);
    let both = plan(&node, &whole(1)).unwrap();
    assert!(node.take(&both));
    assert!(!node.take(&both), "a second time it is not free");
    assert_eq!(plan(&node, &whole(1)).unwrap_err().reason, Reason::DeviceHeld);
}

#[test]
fn a_node_without_room_for_cpu_or_without_daemon_says_so() {
    let mut lone = node(vec![gpu(0)]);
    lone.cpu_free = Some(crate::CpuMilli(500));
    let mut shape = whole(1);
    shape.cpu = crate::CpuMilli(1000);
    assert_eq!(plan(&lone, &shape).unwrap_err().reason, Reason::InsufficientCpu);
    lone.reachable = false;
    assert_eq!(plan(&lone, &shape).unwrap_err().reason, Reason::NodeUnreachable);
    assert_eq!(plan(&node(vec![]), &whole(1)).unwrap_err().reason, Reason::NoDevices);
}
