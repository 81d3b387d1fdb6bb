use berth_placement::{PodRef, Reason};
use tonic_types::ErrorDetails;

use super::*;

fn device(uuid: &str) -> wire::Device {
    wire::Device {
        uuid: uuid.to_owned(),
        index: 3,
        model: "H100".to_owned(),
        memory_bytes: 80 << 30,
        schedulable: true,
        health: Some(wire::Health {
            state: wire::HealthState::Healthy.into(),
            ..wire::Health::default()
        }),
        free: Some(wire::Room {
            milli: 250,
            memory_bytes: 20 << 30,
        }),
        ..wire::Device::default()
    }
}

fn node(devices: Vec<wire::Device>) -> wire::Node {
    wire::Node {
        name: "n".to_owned(),
        generation: 7,
        instance_id: "i".to_owned(),
        devices,
        ..wire::Node::default()
    }
}

#[test]
fn a_node_is_understood() {
    let mut split = device("GPU-2");
    split.index = 1;
    split.mig = Some(wire::MigStatus {
        enabled: true,
        instances: vec![wire::MigInstance {
            uuid: "MIG-1".to_owned(),
            profile: "1g.10gb".to_owned(),
            memory_bytes: 10 << 30,
            free: true,
            ..wire::MigInstance::default()
        }],
        ..wire::MigStatus::default()
    });
    let it = report(Some(node(vec![device("GPU-1"), split]))).unwrap();
    assert_eq!(
        (it.state.name.as_str(), it.state.generation, it.instance.as_str()),
        ("n", 7, "i")
    );
    let [first, second] = &*it.state.devices else {
        panic!("two devices")
    };
    assert_eq!(
        (first.uuid.as_str(), second.uuid.as_str()),
        ("GPU-2", "GPU-1"),
        "sorted by index"
    );
    assert_eq!(first.mig.as_ref().unwrap()[0].profile.as_str(), "1g.10gb");
    assert_eq!(
        (second.free.milli, second.health),
        (MilliGpu::new(250), Health::Healthy)
    );
    assert!(second.mig.is_none() && it.reconciled && it.facts.left_out.is_empty());
}

#[test]
fn what_cannot_be_understood_is_left_out_and_told() {
    let mut bad_slot = device("GPU-2");
    bad_slot.mig = Some(wire::MigStatus {
        enabled: true,
        instances: vec![wire::MigInstance::default()],
        ..wire::MigStatus::default()
    });
    let it = report(Some(node(vec![device("nonsense"), bad_slot]))).unwrap();
    assert_eq!(it.state.devices.len(), 1);
    assert_eq!(it.facts.left_out.len(), 2);
    assert!(it.facts.left_out[0].contains("device UUID"), "{:?}", it.facts.left_out);
    assert_eq!(report(None), Err(WireError::Missing("node")));
    assert!(report(Some(wire::Node::default())).is_err(), "a node without a name");
}

#[test]
fn an_unknown_or_missing_health_is_the_worst() {
    for (health, missing) in [(None, false), (Some(0), false), (Some(99), false), (Some(1), true)] {
        let mut it = device("GPU-1");
        it.health = health.map(|state| wire::Health {
            state,
            ..wire::Health::default()
        });
        it.missing = missing;
        let it = report(Some(node(vec![it]))).unwrap();
        assert_eq!(it.state.devices[0].health, Health::Unhealthy, "{health:?}");
        assert_eq!(it.facts.ill.len(), 1);
    }
}

#[test]
fn conditions_that_do_not_hold_are_told() {
    let mut it = node(vec![]);
    it.conditions = vec![
        wire::Condition {
            r#type: "DriverReady".to_owned(),
            status: true,
            ..wire::Condition::default()
        },
        wire::Condition {
            r#type: "LedgerReconciled".to_owned(),
            status: false,
            reason: "KubeletDown".to_owned(),
            message: "no socket".to_owned(),
            ..wire::Condition::default()
        },
    ];
    let it = report(Some(it)).unwrap();
    assert_eq!(it.facts.failing, ["LedgerReconciled: KubeletDown: no socket"]);
    assert!(!it.reconciled);
}

#[test]
fn a_grant_is_understood_in_all_its_kinds() {
    let grant = |milli: u32, mig: &str| wire::Grant {
        device_uuid: "GPU-1".to_owned(),
        milli,
        memory_bytes: 20 << 30,
        mig_uuid: mig.to_owned(),
        mig_profile: "1g.10gb".to_owned(),
        ..wire::Grant::default()
    };
    let it = granted(wire::ReserveResponse {
        allocation: Some(wire::Allocation {
            grants: vec![grant(1000, ""), grant(250, ""), grant(1000, "MIG-1")],
            deadline_unix_ms: 5,
            ..wire::Allocation::default()
        }),
        existing: true,
        generation: 9,
    })
    .unwrap();
    let sizes: Vec<_> = it.plan.grants.into_iter().map(|grant| grant.size).collect();
    assert_eq!(sizes[0], GrantSize::Whole);
    assert!(matches!(sizes[1], GrantSize::Share(room) if room.milli == MilliGpu::new(250)));
    assert!(matches!(&sizes[2], GrantSize::Mig { instance, .. } if instance.as_str() == "MIG-1"));
    assert_eq!((it.existing, it.generation, it.deadline_unix_ms), (true, 9, 5));
    assert!(granted(wire::ReserveResponse::default()).is_err());
}

#[test]
fn a_refusal_keeps_the_daemons_own_reason() {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        Reason::DeviceHeld.as_str(),
        "gpu.berth.dev",
        std::collections::HashMap::new(),
    );
    let status = Status::with_error_details(Code::ResourceExhausted, "8 held", details);
    let error = call_error(&status);
    assert_eq!(
        (error.reason.as_str(), error.message.as_str()),
        ("DeviceHeld", "8 held")
    );
    assert!(!error.outcome_unknown);
}

#[test]
fn an_error_that_the_daemon_did_not_make_leaves_the_outcome_open() {
    for (code, reason) in [
        (Code::Unavailable, "DaemonUnavailable"),
        (Code::DeadlineExceeded, "DaemonTimeout"),
        (Code::Internal, "DaemonError"),
    ] {
        let error = call_error(&Status::new(code, "x".repeat(10_000)));
        assert_eq!(error.reason, reason);
        assert!(error.outcome_unknown && error.message.len() == 500);
    }
    let mut details = ErrorDetails::new();
    details.set_error_info("not a reason!", "", std::collections::HashMap::new());
    let odd = Status::with_error_details(Code::Internal, "", details);
    assert_eq!(call_error(&odd).reason, "DaemonError", "a label must not be anything");
}

#[test]
fn requests_carry_the_shape_and_the_plan() {
    let pod = PodRef::new("ns", "p", "u".parse().unwrap()).unwrap();
    let share = GpuShape::share(Some(MilliGpu::new(500)), Some(MemoryBytes::from_gib(1)), 2).unwrap();
    let shape = Shape::gpu(share).with_models(["H100".parse().unwrap()]);
    let plan = Plan {
        grants: vec![
            Grant {
                device: "GPU-1".parse().unwrap(),
                size: GrantSize::Whole,
            },
            Grant {
                device: "GPU-2".parse().unwrap(),
                size: GrantSize::Mig {
                    instance: "MIG-9".parse().unwrap(),
                    profile: "1g.10gb".parse().unwrap(),
                },
            },
        ],
    };
    let request = reserve_request(&pod, &shape, &plan, "d".to_owned());
    assert_eq!(request.preferred_devices, ["GPU-1", "MIG-9"]);
    assert_eq!(request.pod.unwrap().uid, "u");
    let shape = request.shape.unwrap();
    assert_eq!(shape.models, ["H100"]);
    let expected = wire::GpuShare {
        milli: 500,
        memory_bytes: 1 << 30,
        count: 2,
    };
    assert_eq!(shape.gpu, Some(wire::shape::Gpu::Share(expected)));
}
