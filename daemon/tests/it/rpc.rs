//! Each call of the service: what it answers, and each refusal with its reason.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{
    AcknowledgeHealthRequest, AllocationState, ExplainFitRequest, GpuShare, HealthState, ListAllocationsRequest,
    MigRequest, ReserveRequest, SetDeviceSchedulableRequest, Shape, WatchNodeRequest, allocation::Holder, shape,
};
use berth_runtime::dial::{self, Target};
use berth_testkit::{eventually, http};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::support::{Daemon, SOON, client, devices, node, pod, reason, reserve, share, simulated, whole};

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
    let no_gpu = daemon
        .reserve("uid-1", Shape::default())
        .await
        .unwrap_err();
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
async fn mig_instances_are_granted_by_profile() {
    let mut daemon = Daemon::start(simulated().arg("--simulate", "mig")).await;
    let node = daemon.node().await;
    let split = node
        .devices
        .iter()
        .find(|device| device.mig.as_ref().is_some_and(|mig| mig.enabled))
        .unwrap();
    let instance = split.mig.as_ref().unwrap().instances[0].clone();
    assert!(instance.free && instance.memory_bytes > 0);
    let mig = MigRequest {
        profile: instance.profile.clone(),
        count: 1,
    };
    let shape = Shape {
        gpu: Some(shape::Gpu::Mig(mig)),
        models: Vec::new(),
    };
    let granted = daemon.reserve("a", shape.clone()).await.unwrap();
    assert_eq!(granted.shape, Some(shape));
    let grant = &granted.grants[0];
    assert!(
        grant.mig_uuid.starts_with("MIG-") && grant.memory_bytes > 0,
        "{grant:?}"
    );
    assert_eq!(grant.mig_profile, instance.profile);
    let node = daemon.node().await;
    let instances = node
        .devices
        .iter()
        .flat_map(|device| &device.mig.as_ref().unwrap().instances);
    let held: Vec<_> = instances
        .filter(|instance| !instance.free)
        .map(|instance| instance.uuid.clone())
        .collect();
    assert_eq!(held, std::slice::from_ref(&grant.mig_uuid));
    let bad = MigRequest {
        profile: "half".to_owned(),
        count: 1,
    };
    let bad = Shape {
        gpu: Some(shape::Gpu::Mig(bad)),
        models: Vec::new(),
    };
    assert_eq!(reason(&daemon.reserve("b", bad).await.unwrap_err()), "FieldInvalid");
}

#[tokio::test]
async fn a_share_by_memory_follows_from_the_size_of_the_gpu() {
    let mut daemon = Daemon::start(simulated()).await;
    let share = GpuShare {
        milli: 0,
        memory_bytes: 20 << 30,
        count: 2,
    };
    let shape = Shape {
        gpu: Some(shape::Gpu::Share(share)),
        models: vec!["H100".to_owned()],
    };
    let granted = daemon.reserve("a", shape.clone()).await.unwrap();
    assert_eq!(granted.shape, Some(shape));
    assert_eq!(granted.grants.len(), 2);
    for grant in &granted.grants {
        assert_eq!(grant.memory_bytes, 20 << 30);
        assert!(
            (250..260).contains(&grant.milli),
            "a little more than a quarter of 79.6 GiB: {}",
            grant.milli
        );
    }
}

#[tokio::test]
async fn a_process_that_nobody_assigned_is_told_and_its_gpu_left_alone() {
    let mut daemon = Daemon::start(simulated()).await;
    let uuid = daemon.node().await.devices[4].uuid.clone();
    daemon.order(r#"{"process":{"gpu":4,"pid":4242,"memory":1073741824}}"#);
    let client = &mut daemon.client;
    let listed = eventually(SOON, async || {
        let listed = client.list_allocations(ListAllocationsRequest {}).await?.into_inner();
        ensure!(!listed.out_of_band.is_empty(), "not seen yet");
        Ok(listed)
    });
    let used = listed.await.unwrap().out_of_band;
    assert_eq!((used[0].device_uuid.as_str(), used[0].pid), (uuid.as_str(), 4242));
    assert_eq!(used[0].used_memory_bytes, Some(1 << 30));
    let device = daemon.node().await.devices[4].clone();
    assert!(device.out_of_band && device.free.unwrap().milli == 0);
    assert_eq!(device.processes[0].pid, 4242);
    daemon.reserve("rest", whole(7)).await.unwrap();
    assert_eq!(
        daemon.reserve("eighth", whole(1)).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn a_device_is_taken_out_of_scheduling_and_put_back() {
    let mut daemon = Daemon::start(simulated()).await;
    let uuid = daemon.node().await.devices[0].uuid.clone();
    let set = |schedulable| SetDeviceSchedulableRequest {
        device_uuid: uuid.clone(),
        schedulable,
        message: "fan\nnoise".to_owned(),
    };
    let device = daemon
        .client
        .set_device_schedulable(set(false))
        .await
        .unwrap()
        .into_inner()
        .device
        .unwrap();
    assert!(!device.schedulable);
    assert_eq!(
        device.unschedulable_message, "fan noise",
        "on one line, since it ends up in logs"
    );
    assert_eq!(device.free.unwrap().milli, 0);
    assert_eq!(
        reason(&daemon.reserve("all", whole(8)).await.unwrap_err()),
        "InsufficientDevices"
    );

    let program = simulated().in_dir_of(&daemon.process);
    daemon.end().await;
    let mut daemon = Daemon::start(program).await;
    assert!(!daemon.node().await.devices[0].schedulable, "survives a restart");
    daemon.client.set_device_schedulable(set(true)).await.unwrap();
    daemon.reserve("all", whole(8)).await.unwrap();

    let unknown = SetDeviceSchedulableRequest {
        device_uuid: "GPU-unknown".to_owned(),
        ..set(true)
    };
    let status = daemon.client.set_device_schedulable(unknown).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "UnknownDevice")
    );
}

#[tokio::test]
async fn an_xid_reaches_a_watcher_within_a_second_and_the_gpu_is_avoided() {
    let mut daemon = Daemon::start(simulated()).await;
    let request = WatchNodeRequest { after_generation: 0 };
    let mut watch = daemon.client.watch_node(request).await.unwrap().into_inner();
    let first = watch.next().await.unwrap().unwrap().node.unwrap();
    assert_eq!(first.devices.len(), 8, "the present state comes at once");

    let mut generation = first.generation;
    daemon.order(r#"{"xid":{"gpu":3,"code":79}}"#);
    let broken = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            let node = watch.next().await.unwrap().unwrap().node.unwrap();
            assert!(
                node.generation > generation,
                "each message is newer than the one before"
            );
            generation = node.generation;
            if node.devices[3].health.as_ref().unwrap().state() == HealthState::Unhealthy {
                return node;
            }
        }
    });
    let broken = broken.await.expect("within a second");
    let health = broken.devices[3].health.clone().unwrap();
    assert!(health.reasons.iter().any(|reason| reason.xid == Some(79)), "{health:?}");
    assert_eq!(broken.devices[3].free.unwrap().milli, 0);
    assert_eq!(
        reason(&daemon.reserve("all", whole(8)).await.unwrap_err()),
        "InsufficientDevices"
    );
    daemon.reserve("rest", whole(7)).await.unwrap();

    let metrics = http::get(&format!("{}/metrics", daemon.process.admin()))
        .await
        .unwrap()
        .body;
    assert!(metrics.contains(r#"berth_xids_total{xid="79"} 1"#), "{metrics}");
}

#[tokio::test]
async fn an_operators_word_sends_a_mended_gpu_to_recovering() {
    let mut daemon = Daemon::start(simulated()).await;
    let uuid = daemon.node().await.devices[3].uuid.clone();
    let state = async |daemon: &mut Daemon, expected| {
        let client = &mut daemon.client;
        eventually(SOON, async || {
            let health = node(client).await?.devices[3].health.clone().context("health")?;
            ensure!(health.state() == expected, "{health:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    daemon.order(r#"{"xid":{"gpu":3,"code":79}}"#);
    state(&mut daemon, HealthState::Unhealthy).await;
    daemon.order(r#"{"restore":{"gpu":3}}"#);
    let request = AcknowledgeHealthRequest {
        device_uuid: uuid,
        message: "reseated".to_owned(),
    };
    eventually(SOON, async || {
        let answer = daemon.client.acknowledge_health(request.clone()).await?.into_inner();
        let health = answer.device.context("a device")?.health.context("health")?;
        ensure!(health.state() == HealthState::Recovering, "{health:?}");
        Ok(())
    })
    .await
    .unwrap();
    let unknown = AcknowledgeHealthRequest {
        device_uuid: "GPU-unknown".to_owned(),
        message: String::new(),
    };
    let status = daemon.client.acknowledge_health(unknown).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "UnknownDevice")
    );
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
