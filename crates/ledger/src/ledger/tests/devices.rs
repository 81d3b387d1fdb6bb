use super::*;

#[test]
fn facts_that_are_the_ledgers_own_business_are_ignored() {
    let mut desk = Desk::gpus(1);
    desk.acquire("l", &share(400)).unwrap();
    let lies = DeviceState {
        schedulable: false,
        out_of_band: true,
        free: Room::default(),
        ..gpu(0)
    };
    let generation = desk.ledger.snapshot().generation();
    desk.devices(vec![lies]);
    assert_eq!(desk.ledger.snapshot().generation(), generation);
    assert_eq!(desk.free_milli(0), 600);
}

#[test]
fn a_device_that_vanishes_stays_held_and_is_there_again_when_it_returns() {
    let mut desk = Desk::gpus(2);
    let lease = desk.acquire("l", &whole(1)).unwrap();
    desk.devices(vec![gpu(1)]);
    let snapshot = desk.ledger.snapshot();
    assert!(snapshot.missing.contains_key(&uuid(0)));
    assert_eq!(snapshot.node.devices.len(), 1);
    desk.devices(vec![gpu(0), gpu(1)]);
    assert!(desk.ledger.snapshot().missing.is_empty());
    assert_eq!(desk.free_milli(0), 0);
    desk.release(lease.holder);
    assert_eq!(desk.free_milli(0), 1000);
}

#[test]
fn a_missing_device_that_nobody_holds_any_more_is_forgotten() {
    let mut desk = Desk::gpus(2);
    let lease = desk.acquire("l", &whole(1)).unwrap();
    desk.devices(vec![gpu(1)]);
    desk.release(lease.holder);
    assert!(desk.ledger.snapshot().missing.is_empty());
}

#[test]
fn a_device_that_is_plugged_in_is_granted() {
    let mut desk = Desk::gpus(1);
    desk.reserve(&pod("a", "u1"), &whole(1));
    desk.devices(vec![gpu(1), gpu(0)]);
    assert_eq!(devices_of(&desk.reserve(&pod("b", "u2"), &whole(1))), [uuid(1)]);
}

#[test]
fn devices_are_sorted_by_index_and_told_once() {
    let mut desk = Desk::with(vec![gpu(2), gpu(0), gpu(0), gpu(1)]);
    let indexes: Vec<_> = desk
        .ledger
        .snapshot()
        .node
        .devices
        .iter()
        .map(|device| device.index)
        .collect();
    assert_eq!(indexes, [0, 1, 2]);
    desk.devices(vec![gpu(0), gpu(1), gpu(2)]);
}

#[test]
fn a_cordon_keeps_newcomers_away_and_outlives_the_device_and_a_restart() {
    let mut desk = Desk::gpus(1);
    let cordon = |schedulable| Event::SetSchedulable {
        device: uuid(0),
        schedulable,
        message: "fan".to_owned(),
    };
    desk.apply(cordon(false)).unwrap();
    let written = desk.journal.len();
    desk.apply(cordon(false)).unwrap();
    assert_eq!(desk.journal.len(), written, "twice is once");
    assert_eq!(
        desk.try_reserve(&pod("a", "u1"), &whole(1)).unwrap_err().reason(),
        "DeviceCordoned"
    );
    desk.devices(vec![]);
    let mut desk = desk.restarted(&desk.journal);
    desk.devices(vec![gpu(0)]);
    desk.kubelet(vec![]);
    assert_eq!(
        desk.ledger.snapshot().cordons.get(&uuid(0)).map(String::as_str),
        Some("fan")
    );
    assert!(desk.try_reserve(&pod("a", "u1"), &whole(1)).is_err());
    desk.apply(cordon(true)).unwrap();
    desk.reserve(&pod("a", "u1"), &whole(1));
}

#[test]
fn an_unknown_device_cannot_be_cordoned() {
    let mut desk = Desk::gpus(1);
    let refused = desk.apply(Event::SetSchedulable {
        device: uuid(7),
        schedulable: false,
        message: String::new(),
    });
    assert_eq!(refused, Err(RequestRefused::UnknownDevice(uuid(7))));
}

#[test]
fn a_device_that_is_split_under_an_allocation_stays_its_holders() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.devices(vec![split(0, 2)]);
    assert!(desk.try_reserve(&pod("b", "u2"), &mig(1)).is_err());
    desk.devices(vec![gpu(0)]);
    assert_eq!(desk.free_milli(0), 0);
    assert!(desk.claim_of(&a).is_some());
}

#[test]
fn an_allocated_instance_that_is_gone_does_not_keep_its_neighbours() {
    let mut desk = Desk::with(vec![split(0, 2)]);
    let a = pod("a", "u1");
    desk.reserve(&a, &mig(1));
    desk.kubelet(vec![told("a", &[instance(0, 0)])]);
    let mut without = split(0, 3);
    without.mig.as_mut().unwrap().remove(0);
    desk.devices(vec![without]);
    desk.kubelet(vec![told("a", &[instance(0, 0)])]);
    desk.reserve(&pod("b", "u2"), &mig(2));
    desk.tick_after(60_000);
    assert_eq!(desk.drifts(), [(DriftReason::AssignedUnusable, Some(holder(&a)))]);
}
