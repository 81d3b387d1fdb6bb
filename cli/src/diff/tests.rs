use super::*;
use crate::{
    testing::{book, device, grant, node, pod, uuid},
    view::{AllocationState, Condition, Drift, HealthReason, HealthState},
};

fn look() -> Look {
    Look {
        node: node(),
        book: book(),
    }
}

/// What a change of one look tells: kind, subject and message of each line.
fn told(change: impl FnOnce(&mut Look)) -> Vec<String> {
    let (old, mut new) = (look(), look());
    change(&mut new);
    lines(&changes(&old, &new))
}

fn lines(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        format!(
            "{} [{}] {}",
            change.kind.as_str(),
            change.subject().unwrap_or_default(),
            change.message
        )
    };
    changes.iter().map(line).collect()
}

#[test]
fn nothing_is_told_where_nothing_changed() {
    assert_eq!(told(|_| {}), [""; 0]);
    // What moves all the time, and the generation, is no change.
    let moved = told(|look| {
        look.node.generation += 1;
        look.node.devices[7].status = Some(crate::view::DeviceStatus::default());
        look.node.devices[6].processes.clear();
        look.book.allocations[2].deadline_unix_ms = Some(1);
    });
    assert_eq!(moved, [""; 0]);
}

#[test]
fn a_device_that_falls_ill_is_told_with_the_reason() {
    let told = told(|look| {
        look.node.devices[7].health.state = HealthState::Unhealthy;
        look.node.devices[7].health.reasons.push(HealthReason {
            reason: "Xid".to_owned(),
            message: "XID 79: GPU has fallen off the bus".to_owned(),
            since_unix_ms: 0,
            xid: Some(79),
        });
    });
    assert_eq!(
        told,
        ["HealthChanged [GPU 7] Healthy -> Unhealthy: XID 79: GPU has fallen off the bus"]
    );
}

#[test]
fn a_device_that_recovers_and_one_that_gets_another_reason_are_told() {
    let told = told(|look| {
        look.node.devices[3].health.state = HealthState::Healthy;
        look.node.devices[3].health.reasons.clear();
    });
    assert_eq!(told, ["HealthChanged [GPU 3] Unhealthy -> Healthy"]);
    let mut old = look();
    old.node.devices[3].health.reasons[0].xid = Some(48);
    let told = lines(&changes(&old, &look()));
    assert_eq!(
        told,
        ["HealthChanged [GPU 3] Unhealthy: XID 79: GPU has fallen off the bus"]
    );
}

#[test]
fn devices_that_come_and_go_are_told() {
    let told = told(|look| {
        look.node.devices.remove(7);
        look.node.devices.push(device(8));
        look.node.devices[0].missing = true;
    });
    assert_eq!(
        told,
        [
            "DeviceRemoved [GPU 7] H100 is no longer there",
            "DeviceMissing [GPU 0] the driver no longer finds it, but somebody holds it",
            "DeviceAdded [GPU 8] H100, Healthy",
        ]
    );
}

#[test]
fn what_operators_do_to_a_device_is_told() {
    let told = told(|look| {
        look.node.devices[4].schedulable = true;
        look.node.devices[7].schedulable = false;
        look.node.devices[7].unschedulable_message = "ticket 1".to_owned();
        look.node.devices[5].mig.enabled = false;
        look.node.devices[5].mig.instances.clear();
        look.node.devices[6].out_of_band = false;
        look.node.devices[0].out_of_band = true;
    });
    assert_eq!(
        told,
        [
            "OutOfBandBegan [GPU 0] a process runs there that nobody gave it to",
            "DeviceUncordoned [GPU 4] back in scheduling",
            "MigChanged [GPU 5] MIG off",
            "OutOfBandEnded [GPU 6] no such process runs there any longer",
            "DeviceCordoned [GPU 7] ticket 1",
        ]
    );
}

#[test]
fn a_held_mig_instance_is_told_of_its_holder_only() {
    assert_eq!(told(|look| look.node.devices[5].mig.instances[1].free = false), [""; 0]);
}

#[test]
fn holders_that_come_go_and_change_are_told() {
    let told = told(|look| {
        let allocations = &mut look.book.allocations;
        allocations.remove(1);
        allocations[1].state = AllocationState::Allocated;
        allocations[1].grants = vec![grant(7, 250, 19)];
        let mut new = allocations[0].clone();
        new.holder = Some(pod("default/new"));
        new.state = AllocationState::Reserved;
        allocations.push(new);
    });
    assert_eq!(
        told,
        [
            "HolderRemoved [lease 0192f3c4-5b5c-7a0e-8b6c-3d2f9c1a0b11] gave back GPU 2 (0.252)",
            "HolderChanged [nvcf-backend/0-sr-5b5c7a0e-inference-7d9f8c6b5-x2x9z] \
             Reserved GPU 2 (0.25) -> Allocated GPU 7 (0.25)",
            "HolderAdded [default/new] Reserved GPU 0, 1",
        ]
    );
}

#[test]
fn conditions_drift_driver_and_daemon_are_told() {
    let told = told(|look| {
        let Node {
            conditions,
            drifts,
            driver,
            instance_id,
            version,
            ..
        } = &mut look.node;
        let Condition {
            status,
            reason,
            message,
            ..
        } = &mut conditions[2];
        (*status, *reason, *message) = (true, "Answers".to_owned(), "the kubelet answers".to_owned());
        drifts[0].reason = "DeviceMissing".to_owned();
        driver.driver_version.clear();
        *instance_id = "i-2".to_owned();
        *version = "0.2.0".to_owned();
    });
    assert_eq!(
        told,
        [
            "DaemonRestarted [] berthd 0.2.0 runs anew, instance i-2",
            "DriverChanged [] 570.124.06 -> none",
            "ConditionChanged [KubeletReachable] ok, Answers: the kubelet answers",
            "DriftEnded [GPU 6] ProcessWithoutAllocation: pid 4242 runs on GPU 6, and nobody holds it",
            "DriftBegan [GPU 6] DeviceMissing: pid 4242 runs on GPU 6, and nobody holds it",
        ]
    );
}

#[test]
fn a_drift_that_lasts_is_told_once() {
    let same = told(|look| look.node.drifts[0].message = "pid 4242 still runs".to_owned());
    assert_eq!(same, [""; 0]);
    let over_committed = Drift {
        reason: "OverCommitted".to_owned(),
        ..Drift::default()
    };
    let more = told(|look| look.node.drifts.push(over_committed));
    assert_eq!(more, ["DriftBegan [] OverCommitted: "]);
}

#[test]
fn a_change_can_be_read_by_programs() {
    let mut new = look();
    new.node.devices[3].health.state = HealthState::Recovering;
    let json = serde_json::to_value(changes(&look(), &new)).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "kind": "HealthChanged",
            "deviceUuid": uuid(3),
            "index": 3,
            "from": "Unhealthy",
            "to": "Recovering",
            "reason": "Xid",
            "message": "Unhealthy -> Recovering: XID 79: GPU has fallen off the bus",
        }])
    );
    new.book.allocations.remove(0);
    let json = serde_json::to_value(changes(&look(), &new)).unwrap();
    assert_eq!(json[1]["pod"]["name"], "train-0");
}
