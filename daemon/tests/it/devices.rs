//! What happens to devices: taken out by an operator, broken by an XID, used by strangers, split by MIG.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{
    AcknowledgeHealthRequest, GpuShare, HealthState, ListAllocationsRequest, MigRequest, SetDeviceSchedulableRequest,
    Shape, WatchNodeRequest, shape,
};
use berth_testkit::{eventually, http};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::support::{Daemon, SOON, node, reason, simulated, whole};

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
async fn a_health_memory_that_could_not_be_kept_is_kept_at_the_end() {
    let daemon = Daemon::start(simulated()).await;
    let state = daemon.process.dir().join("state");
    // As good as a full disk, and root cannot write it either.
    let in_the_way = state.join("health.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    daemon.order(r#"{"xid":{"gpu":3,"code":79}}"#);
    let told = eventually(SOON, async || {
        let stderr = daemon.process.stderr();
        ensure!(stderr.contains("the health memory could not be kept"), "{stderr}");
        Ok(())
    });
    told.await.unwrap();
    std::fs::remove_dir(&in_the_way).unwrap();
    let _dir = daemon.end().await;
    let kept = std::fs::read_to_string(state.join("health.json")).unwrap();
    assert!(kept.contains("79"), "{kept}");
}
