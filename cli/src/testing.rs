//! A node for tests: eight GPUs, and everything on it that a page has to show.

use crate::view::{
    Allocation, AllocationState, AskedGpu, Book, Condition, Device, Drift, Driver, Grant, Health, HealthReason,
    HealthState, Holder, Mig, MigInstance, Node, OutOfBandUse, Process, Room, Shape,
};

/// 2024-05-06T07:08:09Z.
pub(crate) const NOW: u64 = 1_714_979_289_000;
const MEMORY: u64 = 81_559 << 20;

pub(crate) fn uuid(index: u32) -> String {
    format!(
        "GPU-{:08x}-5b5c-7a0e-2b6c-3d2f9c1a0b11",
        0x4c1f_0f5e_u32.wrapping_mul(index + 1)
    )
}

pub(crate) fn device(index: u32) -> Device {
    Device {
        uuid: uuid(index),
        index,
        pci_bus_id: format!("00000000:{:02X}:00.0", 0x1b + index),
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        model: "H100".to_owned(),
        memory_bytes: MEMORY,
        numa_node: Some(index / 4),
        nvlink_domain: Some(0),
        mig: Mig {
            supported: true,
            ..Mig::default()
        },
        health: Health {
            state: HealthState::Healthy,
            since_unix_ms: NOW - 86_400_000 * 9,
            reasons: Vec::new(),
        },
        schedulable: true,
        free: Room {
            milli: 1000,
            memory_bytes: MEMORY,
        },
        ..Device::default()
    }
}

/// GPU 0 and 1 whole to a pod, 2 in parts, 3 broken, 4 cordoned, 5 split by MIG, 6 used by a stranger, 7 free.
pub(crate) fn node() -> Node {
    let mut devices: Vec<Device> = (0..8).map(device).collect();
    devices[0].free = Room::default();
    devices[1].free = Room::default();
    devices[2].free = Room {
        milli: 500,
        memory_bytes: MEMORY - (40 << 30),
    };
    devices[3].free = Room::default();
    devices[3].health = Health {
        state: HealthState::Unhealthy,
        since_unix_ms: NOW - 180_000,
        reasons: vec![HealthReason {
            reason: "Xid".to_owned(),
            message: "XID 79: GPU has fallen off the bus".to_owned(),
            since_unix_ms: NOW - 180_000,
            xid: Some(79),
        }],
    };
    devices[4].schedulable = false;
    devices[4].unschedulable_message = "fan is loud, ticket 4711".to_owned();
    devices[5].mig = Mig {
        supported: true,
        enabled: true,
        pending: false,
        instances: instances(),
    };
    devices[5].free = Room {
        milli: 0,
        memory_bytes: 0,
    };
    devices[6].out_of_band = true;
    devices[6].free = Room::default();
    devices[6].processes = vec![Process {
        pid: 4242,
        used_memory_bytes: Some(3 << 30),
        ..Process::default()
    }];
    Node {
        name: "gpu-box-1".to_owned(),
        generation: 42,
        instance_id: "3f2b7c1e-0d7e-4b5e-9d0a-5d8b0f6d8f10".to_owned(),
        version: "0.1.0".to_owned(),
        simulated: false,
        driver: Driver {
            backend: "nvml".to_owned(),
            driver_version: "570.124.06".to_owned(),
            nvml_version: "12.570.124.06".to_owned(),
            cuda_version: Some(12_080),
        },
        conditions: conditions(),
        drifts: vec![Drift {
            reason: "ProcessWithoutAllocation".to_owned(),
            message: "pid 4242 runs on GPU 6, and nobody holds it".to_owned(),
            holder: String::new(),
            device_uuid: uuid(6),
            since_unix_ms: NOW - 600_000,
        }],
        devices,
    }
}

fn instances() -> Vec<MigInstance> {
    let instance = |id: u32| MigInstance {
        uuid: format!("MIG-{id:08x}-5b5c-7a0e-2b6c-3d2f9c1a0b11"),
        profile: "1g.10gb".to_owned(),
        memory_bytes: 10 << 30,
        gpu_instance_id: id,
        compute_instance_id: 0,
        free: id > 7,
    };
    (7..10).map(instance).collect()
}

fn conditions() -> Vec<Condition> {
    let condition = |kind: &str, status, reason: &str, message: &str, ago: u64| Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_unix_ms: NOW - ago,
    };
    vec![
        condition("DriverReady", true, "DriverLoaded", "NVML answers", 777_600_000),
        condition(
            "LedgerReconciled",
            true,
            "Reconciled",
            "the book agrees with the kubelet",
            777_600_000,
        ),
        condition(
            "KubeletReachable",
            false,
            "SocketMissing",
            "/var/lib/kubelet/pod-resources/kubelet.sock is not there: is the kubelet running, and is its directory \
             mounted? Reservations are not confirmed meanwhile",
            95_000,
        ),
        condition("JournalHealthy", true, "Written", "", 777_600_000),
        condition("TlsReady", true, "NotUsed", "the server runs without TLS", 777_600_000),
    ]
}

pub(crate) fn grant(index: u32, milli: u32, memory_gib: u64) -> Grant {
    Grant {
        device_uuid: uuid(index),
        index,
        milli,
        memory_bytes: if milli == 1000 { MEMORY } else { memory_gib << 30 },
        mig_uuid: String::new(),
        mig_profile: String::new(),
    }
}

pub(crate) fn pod(name: &str) -> Holder {
    let (namespace, name) = name.split_once('/').unwrap();
    Holder::Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
    }
}

pub(crate) fn book() -> Book {
    let share = |milli, gib: u64| Shape {
        gpu: Some(AskedGpu::Share {
            milli,
            memory_bytes: gib << 30,
            count: 1,
        }),
        models: Vec::new(),
    };
    let mig_instance = instances().remove(0);
    let mig = Grant {
        mig_uuid: mig_instance.uuid,
        mig_profile: mig_instance.profile,
        ..grant(5, 142, 10)
    };
    Book {
        generation: 42,
        allocations: vec![
            Allocation {
                holder: Some(pod("default/train-0")),
                state: AllocationState::Allocated,
                shape: Shape {
                    gpu: Some(AskedGpu::Whole { count: 2 }),
                    models: vec!["H100".to_owned()],
                },
                grants: vec![grant(0, 1000, 0), grant(1, 1000, 0)],
                granted_unix_ms: NOW - 10_800_000,
                deadline_unix_ms: None,
                client: "certificate cn:berth-scheduler".to_owned(),
                decision_id: "d-17".to_owned(),
            },
            Allocation {
                holder: Some(Holder::LeaseId("0192f3c4-5b5c-7a0e-8b6c-3d2f9c1a0b11".to_owned())),
                state: AllocationState::Leased,
                shape: share(0, 20),
                grants: vec![grant(2, 252, 20)],
                granted_unix_ms: NOW - 75_000,
                deadline_unix_ms: None,
                client: "uid 1000 gid 1000 pid 4711, alice: python".to_owned(),
                decision_id: String::new(),
            },
            Allocation {
                holder: Some(pod("nvcf-backend/0-sr-5b5c7a0e-inference-7d9f8c6b5-x2x9z")),
                state: AllocationState::Reserved,
                shape: share(250, 0),
                grants: vec![grant(2, 250, 19)],
                granted_unix_ms: NOW - 4_000,
                deadline_unix_ms: Some(NOW + 296_000),
                client: "certificate cn:berth-scheduler".to_owned(),
                decision_id: "d-18".to_owned(),
            },
            Allocation {
                holder: Some(pod("default/notebook-0")),
                state: AllocationState::Foreign,
                shape: Shape {
                    gpu: Some(AskedGpu::Mig {
                        profile: "1g.10gb".to_owned(),
                        count: 1,
                    }),
                    models: vec![],
                },
                grants: vec![mig],
                granted_unix_ms: NOW - 400_000_000,
                deadline_unix_ms: None,
                client: String::new(),
                decision_id: String::new(),
            },
        ],
        out_of_band: vec![OutOfBandUse {
            device_uuid: uuid(6),
            pid: 4242,
            used_memory_bytes: Some(3 << 30),
            since_unix_ms: NOW - 605_000,
        }],
    }
}
