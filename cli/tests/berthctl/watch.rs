//! `berthctl watch` as a process.

use std::sync::Arc;

use berth_proto::node::v1 as pb;
use serde_json::Value;

use crate::{
    fake::{Fake, device, grant, lease},
    kit::{SOON, berthctl, see, start_and_see},
};

#[tokio::test]
async fn each_change_is_a_line_and_ctrl_c_is_a_clean_end() {
    let fake = Fake::start();
    let mut watch = start_and_see(&fake, &["watch"], "Connected           fake-node: 2 GPUs, 0 holders").await;
    fake.change(|node| {
        let health = node.devices[1].health.as_mut().unwrap();
        health.set_state(pb::HealthState::Unhealthy);
        health.reasons.push(pb::HealthReason {
            reason: "Xid".to_owned(),
            message: "XID 79: GPU has fallen off the bus".to_owned(),
            xid: Some(79),
            ..pb::HealthReason::default()
        });
    });
    see(
        &watch,
        "HealthChanged       GPU 1: Healthy -> Unhealthy: XID 79: GPU has fallen off the bus\n",
    )
    .await;
    fake.state.book.lock().allocations.push(lease(vec![grant(0)]));
    fake.change(|node| node.devices.push(device(2)));
    see(&watch, "DeviceAdded         GPU 2: H100, Healthy\n").await;
    see(
        &watch,
        "HolderAdded         lease 0192f3c4-5b5c-7a0e-8b6c-3d2f9c1a0b11: Leased GPU 0\n",
    )
    .await;
    watch.signal("INT").unwrap();
    assert_eq!(watch.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(watch.stderr(), "");
}

#[tokio::test]
async fn json_is_one_line_for_each_change() {
    let fake = Fake::start();
    let mut watch = start_and_see(&fake, &["watch", "-o", "json"], "Connected").await;
    fake.change(|node| node.devices[0].schedulable = false);
    see(&watch, "DeviceCordoned").await;
    watch.terminate().unwrap();
    assert_eq!(watch.wait(SOON).await.unwrap().code(), Some(0));
    let lines: Vec<Value> = watch
        .stdout()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["kind"], &lines[1]["index"]),
        (&"DeviceCordoned".into(), &0.into())
    );
    assert_eq!(lines[1]["generation"], 2);
    assert!(lines[1]["unixMs"].as_u64().unwrap() > 1_704_067_200_000);
}

#[tokio::test]
async fn a_daemon_that_goes_away_is_waited_for_and_what_it_missed_is_told() {
    let fake = Fake::start();
    let mut watch = start_and_see(&fake, &["watch"], "Connected").await;
    let dir = Arc::clone(&fake.dir);
    drop(fake);
    see(&watch, "Disconnected").await;
    let again = Fake::start_in(dir, "instance-2");
    see(
        &watch,
        "DaemonRestarted     berthd 0.1.0 runs anew, instance instance-2\n",
    )
    .await;
    again.change(|node| node.devices[0].schedulable = false);
    see(&watch, "DeviceCordoned").await;
    watch.signal("INT").unwrap();
    assert_eq!(watch.wait(SOON).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_daemon_that_was_never_there_is_not_waited_for() {
    let ended = berthctl("http://127.0.0.1:1", &["watch"]).run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(3));
}
