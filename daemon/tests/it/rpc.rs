//! The calls of the service: what each answers, and each refusal with its reason (`devices` has those about devices).

use berth_proto::node::v1::{
    AllocationState, ExplainFitRequest, ReserveRequest, Shape, WatchNodeRequest, allocation::Holder,
};
use berth_runtime::dial::{self, Target};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::support::{Daemon, client, devices, node, pod, reason, reserve, share, simulated, whole};

#[tokio::test]
async fn get_node_tells_devices_conditions_and_who_answers() {
    let mut daemon = Daemon::start(simulated()).await;
    let node = daemon.node().await;
    assert_eq!((node.name.as_str(), node.simulated), ("test-node", true));
    assert_eq!(node.driver.unwrap().backend, "simulated");
    let kinds: Vec<_> = node
        .conditions
        .iter()
        .map(|condition| condition.r#type.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "DriverReady",
            "LedgerReconciled",
            "KubeletReachable",
            "JournalHealthy",
            "TlsReady"
        ]
    );
    assert!(
        node.conditions
            .iter()
            .all(|condition| condition.status && !condition.reason.is_empty())
    );
    assert_eq!(node.devices.len(), 8);
    for (index, device) in (0..).zip(&node.devices) {
        assert_eq!(device.index, index);
        assert_eq!(
            (device.model.as_str(), device.architecture.as_str()),
            ("H100", "Hopper")
        );
        assert!(device.uuid.starts_with("GPU-") && device.memory_bytes > 70 << 30 && device.schedulable);
        assert_eq!(device.free.unwrap().milli, 1000);
        assert_eq!(device.free.unwrap().memory_bytes, device.memory_bytes);
        assert_eq!(device.nvlink_peers.len(), 7);
    }
}

#[tokio::test]
async fn a_reservation_is_granted_listed_and_given_back() {
    let mut daemon = Daemon::start(simulated()).await;
    let first = reserve(&mut daemon.client, "uid-1", whole(2)).await.unwrap();
    let granted = first.allocation.unwrap();
    assert!(!first.existing);
    assert_eq!((granted.grants.len(), granted.grants[0].milli), (2, 1000));
    assert!(granted.grants[0].memory_bytes > 70 << 30);
    assert_eq!(granted.state(), AllocationState::Reserved);
    assert!(granted.deadline_unix_ms > granted.granted_unix_ms);
    assert!(
        granted.client.contains("uid 0") || granted.client.contains("uid"),
        "{}",
        granted.client
    );

    let node = daemon.node().await;
    assert!(
        node.generation >= first.generation,
        "whoever has the answer finds it in the node"
    );
    let held: Vec<_> = node
        .devices
        .iter()
        .filter(|device| device.free.unwrap().milli == 0)
        .collect();
    assert_eq!(held.len(), 2);
    let listed = daemon.allocations().await;
    assert_eq!(listed, std::slice::from_ref(&granted));
    assert_eq!(listed[0].holder, Some(Holder::Pod(pod("uid-1"))));

    assert!(daemon.release("uid-1").await.unwrap());
    assert!(
        !daemon.release("uid-1").await.unwrap(),
        "releasing what is not held succeeds and says so"
    );
    assert!(daemon.allocations().await.is_empty());
}

#[tokio::test]
async fn the_same_pod_gets_the_same_grant_and_no_second_one() {
    let mut daemon = Daemon::start(simulated()).await;
    let first = daemon.reserve("uid-1", share(250)).await.unwrap();
    let again = reserve(&mut daemon.client, "uid-1", share(250)).await.unwrap();
    assert!(again.existing);
    assert_eq!(devices(&again.allocation.unwrap()), devices(&first));
    let other = daemon.reserve("uid-1", whole(1)).await.unwrap_err();
    assert_eq!(
        (other.code(), reason(&other).as_str()),
        (Code::AlreadyExists, "HolderHasOther")
    );
    assert_eq!(daemon.allocations().await.len(), 1);
}

#[tokio::test]
async fn no_room_is_refused_with_the_reason_and_costs_nothing() {
    let mut daemon = Daemon::start(simulated()).await;
    daemon.reserve("big", whole(7)).await.unwrap();
    let refused = daemon.reserve("too-big", whole(2)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "InsufficientDevices")
    );
    daemon.reserve("last", whole(1)).await.unwrap();
    let refused = daemon.reserve("late", share(1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "InsufficientMilli")
    );
    let mut model = whole(1);
    model.models = vec!["L40S".to_owned()];
    assert_eq!(
        reason(&daemon.reserve("other", model).await.unwrap_err()),
        "ModelMismatch"
    );
    assert_eq!(daemon.allocations().await.len(), 2);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn bad_requests_name_the_field_and_the_rule() {
    let mut daemon = Daemon::start(simulated()).await;
    let good = ReserveRequest {
        pod: Some(pod("uid-1")),
        shape: Some(whole(1)),
        ..ReserveRequest::default()
    };
    let mut bad_pod = pod("uid-1");
    bad_pod.name = "Not A Name".to_owned();
    let cases = [
        (
            ReserveRequest {
                pod: None,
                ..good.clone()
            },
            "pod",
            "FieldMissing",
        ),
        (
            ReserveRequest {
                pod: Some(bad_pod),
                ..good.clone()
            },
            "pod",
            "FieldInvalid",
        ),
        (
            ReserveRequest {
                pod: Some(pod("")),
                ..good.clone()
            },
            "pod.uid",
            "FieldInvalid",
        ),
        (
            ReserveRequest {
                shape: None,
                ..good.clone()
            },
            "shape",
            "FieldMissing",
        ),
        (
            ReserveRequest {
                shape: Some(whole(0)),
                ..good.clone()
            },
            "shape",
            "InvalidGpuCount",
        ),
        (
            ReserveRequest {
                shape: Some(share(1500)),
                ..good.clone()
            },
            "shape",
            "InvalidGpuShare",
        ),
        (
            ReserveRequest {
                shape: Some(share(0)),
                ..good.clone()
            },
            "shape",
            "EmptyGpuShare",
        ),
        (
            ReserveRequest {
                preferred_devices: vec!["no-uuid".to_owned()],
                ..good.clone()
            },
            "preferred_devices",
            "FieldInvalid",
        ),
        (
            ReserveRequest {
                decision_id: "x".repeat(5000),
                ..good.clone()
            },
            "decision_id",
            "FieldTooLarge",
        ),
    ];
    for (request, field, expected) in cases {
        let status = daemon.client.reserve(request).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, expected)
        );
        let details = status.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
    let no_gpu = daemon.reserve("uid-1", Shape::default()).await.unwrap_err();
    assert_eq!(
        (no_gpu.code(), reason(&no_gpu).as_str()),
        (Code::InvalidArgument, "NothingAsked")
    );
    let huge = ReserveRequest {
        decision_id: "x".repeat(1 << 20),
        ..good
    };
    assert_eq!(daemon.client.reserve(huge).await.unwrap_err().code(), Code::OutOfRange);
    assert!(daemon.allocations().await.is_empty());
}

#[tokio::test]
async fn the_schedulers_plan_is_followed_where_it_fits() {
    let mut daemon = Daemon::start(simulated()).await;
    let wanted = daemon.node().await.devices[5].uuid.clone();
    let request = |uid: &str| ReserveRequest {
        pod: Some(pod(uid)),
        shape: Some(whole(1)),
        preferred_devices: vec![wanted.clone()],
        ..ReserveRequest::default()
    };
    let first = daemon
        .client
        .reserve(request("a"))
        .await
        .unwrap()
        .into_inner()
        .allocation
        .unwrap();
    assert_eq!(devices(&first), std::slice::from_ref(&wanted));
    let second = daemon
        .client
        .reserve(request("b"))
        .await
        .unwrap()
        .into_inner()
        .allocation
        .unwrap();
    assert_ne!(devices(&second), [wanted], "taken meanwhile: planned anew");
}

#[tokio::test]
async fn explain_fit_tells_the_plan_and_a_verdict_for_each_device() {
    let mut daemon = Daemon::start(simulated()).await;
    let held = devices(&daemon.reserve("a", whole(6)).await.unwrap());
    let explain = |shape| ExplainFitRequest { shape: Some(shape) };
    let fits = daemon.client.explain_fit(explain(whole(2))).await.unwrap().into_inner();
    assert!(fits.fits && fits.reason.is_empty());
    assert_eq!(fits.plan.len(), 2);
    assert!(fits.plan.iter().all(|grant| !held.contains(&grant.device_uuid)));
    let refused = daemon.client.explain_fit(explain(whole(3))).await.unwrap().into_inner();
    assert!(!refused.fits && refused.plan.is_empty());
    assert_eq!(refused.reason, "InsufficientDevices");
    for device in &refused.devices {
        let expected = if held.contains(&device.device_uuid) {
            (false, "DeviceHeld")
        } else {
            (true, "")
        };
        assert_eq!((device.fits, device.reason.as_str()), expected);
    }
    assert_eq!(daemon.allocations().await.len(), 1, "explaining changes nothing");
}

#[tokio::test]
async fn a_watcher_that_knows_the_state_hears_of_the_next_one_only() {
    let mut daemon = Daemon::start(simulated()).await;
    let known = daemon.node().await.generation;
    let request = WatchNodeRequest {
        after_generation: known,
    };
    let mut watch = daemon.client.watch_node(request).await.unwrap().into_inner();
    let granted = reserve(&mut daemon.client, "a", whole(1)).await.unwrap();
    let next = watch.next().await.unwrap().unwrap().node.unwrap();
    assert!(next.generation > known && next.generation >= granted.generation);
}

#[tokio::test]
async fn reflection_and_health_need_no_proto_file() {
    use tonic_reflection::pb::{v1, v1alpha};
    let daemon = Daemon::start(simulated()).await;
    // Over TCP, as grpcurl asks.
    let target: Target = daemon.process.grpc().parse().unwrap();
    let channel = dial::channel(&target, None).unwrap();

    let list = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
        ..v1::ServerReflectionRequest::default()
    };
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "berth.node.v1.NodeService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );

    let symbol = v1alpha::ServerReflectionRequest {
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "berth.node.v1.NodeService.Reserve".to_owned(),
            ),
        ),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(symbol))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(
        answer,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    ));

    let mut health = HealthClient::new(channel);
    for service in ["", "berth.node.v1.NodeService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest {
        service: "no.such.Service".to_owned(),
    };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn plain_tcp_may_read_but_not_change() {
    let daemon = Daemon::start(simulated()).await;
    let mut tcp = client(&daemon.process.grpc().parse().unwrap());
    assert_eq!(node(&mut tcp).await.unwrap().devices.len(), 8);
    let denied = reserve(&mut tcp, "a", whole(1)).await.unwrap_err();
    assert_eq!(
        (denied.code(), reason(&denied).as_str()),
        (Code::PermissionDenied, "IdentityNotAllowed")
    );
    assert!(denied.message().contains("--allow loopback"), "{}", denied.message());

    let daemon = Daemon::start(simulated().arg("--allow", "loopback")).await;
    let mut tcp = client(&daemon.process.grpc().parse().unwrap());
    reserve(&mut tcp, "a", whole(1)).await.unwrap();
}
