use super::*;

#[test]
fn a_displaced_reservation_is_planned_anew_at_once_and_written() {
    let mut desk = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    desk.reserve(&a, &whole(1));
    assert_eq!(devices_of(&desk.reserve(&b, &whole(1))), [uuid(1)]);
    desk.kubelet(vec![told("a", &[uuid(1)])]);
    let moved = desk.claim_of(&b).unwrap();
    assert_eq!(devices_of(&moved), [uuid(0)]);
    assert_eq!(desk.journal.last(), Some(&Record::Put(moved)));
    assert!(desk.revoked().is_empty());
    assert!(desk.drifts().is_empty());
}

#[test]
fn a_displaced_reservation_without_room_is_revoked() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("x", &[uuid(0)])]);
    assert_eq!(desk.claim_of(&a), None);
    assert_eq!(desk.revoked(), [(holder(&a), removal::DISPLACED_BY_KUBELET)]);
    assert!(matches!(desk.journal.last(), Some(Record::Removed { reason, .. }) if reason == "DisplacedByKubelet"));
}

#[test]
fn of_several_shares_only_the_newest_make_way_and_only_as_many_as_must() {
    let mut desk = Desk::gpus(2);
    let pods: Vec<_> = (0..3).map(|n| pod(&format!("p{n}"), &format!("u{n}"))).collect();
    for pod in &pods {
        assert_eq!(devices_of(&desk.reserve(pod, &share(300))), [uuid(0)]);
    }
    let guest = pod("guest", "g");
    desk.acquire("l", &share(1000 - 10)).unwrap();
    desk.release(lease_holder("l"));
    let mut wish = reserve(&guest, &share(300));
    if let Event::Reserve { preferred, .. } = &mut wish {
        preferred.push(uuid(1));
    }
    desk.apply(wish).unwrap();
    desk.kubelet(vec![told_shared("guest", &[uuid(0)])]);
    assert_eq!(devices_of(&desk.claim_of(&pods[0]).unwrap()), [uuid(0)]);
    assert_eq!(devices_of(&desk.claim_of(&pods[1]).unwrap()), [uuid(0)]);
    assert_eq!(devices_of(&desk.claim_of(&pods[2]).unwrap()), [uuid(1)]);
    assert_eq!((desk.free_milli(0), desk.free_milli(1)), (100, 700));
}

#[test]
fn allocations_and_leases_never_make_way() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    let lease = desk.acquire("l", &whole(1)).unwrap();
    desk.kubelet(vec![
        told("a", &[uuid(0)]),
        told("x", &[uuid(0)]),
        told("y", &[uuid(1)]),
    ]);
    assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(0)]);
    assert_eq!(desk.claim(&lease.holder), Some(lease));
    assert!(desk.revoked().is_empty());
    desk.tick_after(60_000);
    let reasons: Vec<_> = desk.drifts().into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, [DriftReason::OverCommitted; 2]);
}

#[test]
fn a_reservation_moves_at_once_from_a_device_that_fell_ill() {
    for health in [Health::Unhealthy, Health::Recovering] {
        let mut desk = Desk::gpus(2);
        let a = pod("a", "u1");
        desk.reserve(&a, &whole(1));
        desk.devices(vec![sick(0, health), gpu(1)]);
        assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(1)], "{health:?}");
    }
}

#[test]
fn a_suspect_or_cordoned_device_drives_nobody_out() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    let planned = desk.reserve(&a, &whole(1));
    desk.devices(vec![sick(0, Health::Suspect), gpu(1)]);
    desk.apply(Event::SetSchedulable {
        device: uuid(0),
        schedulable: false,
        message: "soon".to_owned(),
    })
    .unwrap();
    assert_eq!(desk.claim_of(&a), Some(planned));
}

#[test]
fn a_reservation_whose_device_failed_waits_for_room_and_takes_the_first() {
    let mut desk = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    let planned = desk.reserve(&a, &whole(1));
    desk.reserve(&b, &whole(1));
    desk.devices(vec![sick(0, Health::Unhealthy), gpu(1)]);
    assert_eq!(desk.claim_of(&a), Some(planned), "it keeps its place");
    desk.release(holder(&b));
    assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(1)]);
}

#[test]
fn a_driver_that_is_reloaded_costs_nobody_a_reservation() {
    let mut desk = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    let planned = (desk.reserve(&a, &whole(1)), desk.reserve(&b, &share(500)));
    desk.devices(vec![]);
    desk.tick_after(30_000);
    desk.devices(vec![gpu(0), gpu(1)]);
    desk.tick_after(100_000);
    assert_eq!((desk.claim_of(&a).unwrap(), desk.claim_of(&b).unwrap()), planned);
    assert!(desk.revoked().is_empty());
}

#[test]
fn a_reservation_whose_device_stays_lost_is_revoked_after_the_grace() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(2));
    desk.devices(vec![sick(0, Health::Unhealthy), gpu(1)]);
    assert_eq!(desk.free_milli(1), 0);
    assert_eq!(desk.ledger.next_deadline(), Some(START + 60_000));
    desk.tick_after(59_999);
    assert!(desk.revoked().is_empty());
    desk.tick_after(1);
    assert_eq!(desk.revoked(), [(holder(&a), removal::DEVICE_LOST)]);
    assert_eq!(desk.free_milli(1), 1000, "what was whole of it is free again");
}

#[test]
fn who_asks_again_while_its_device_is_lost_is_not_told_to_use_it() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    let planned = desk.reserve(&a, &whole(1));
    desk.devices(vec![sick(0, Health::Unhealthy)]);
    assert_eq!(desk.try_reserve(&a, &whole(1)).unwrap_err().reason(), "DeviceUnhealthy");
    assert_eq!(desk.claim_of(&a), Some(planned.clone()), "the book is unchanged");
    desk.devices(vec![gpu(0)]);
    assert_eq!(desk.reserve(&a, &whole(1)), planned);
}

#[test]
fn a_device_that_is_split_under_a_reservation_is_lost_to_it() {
    let mut desk = Desk::gpus(1);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    desk.reserve(&a, &whole(1));
    desk.devices(vec![split(0, 2)]);
    assert!(desk.try_reserve(&b, &mig(1)).is_err(), "the whole may come back");
    desk.tick_after(60_000);
    assert_eq!(desk.revoked(), [(holder(&a), removal::DEVICE_LOST)]);
    desk.reserve(&b, &mig(1));
}

#[test]
fn a_reservation_whose_instance_was_remade_moves_to_another_instance() {
    let mut desk = Desk::with(vec![split(0, 1)]);
    let a = pod("a", "u1");
    desk.reserve(&a, &mig(1));
    let mut remade = split(0, 2);
    remade.mig.as_mut().unwrap().remove(0);
    desk.devices(vec![remade]);
    let moved = desk.claim_of(&a).unwrap();
    assert!(matches!(&moved.grants[0].size, GrantSize::Mig { instance: at, .. } if *at == instance(0, 1)));
    assert!(desk.try_reserve(&pod("b", "u2"), &mig(1)).is_err());
}

#[test]
fn memory_that_shrinks_under_shares_drives_the_newest_out() {
    let mut desk = Desk::gpus(1);
    let shape = Shape::gpu(GpuShape::share(None, Some(MemoryBytes::new(40 * GIB)), 1).unwrap());
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    let kept = desk.reserve(&a, &shape);
    desk.reserve(&b, &shape);
    let smaller = DeviceState {
        memory: MemoryBytes::new(76 * GIB),
        ..gpu(0)
    };
    desk.devices(vec![smaller]);
    assert_eq!(desk.claim_of(&a), Some(kept));
    assert_eq!(desk.revoked(), [(holder(&b), removal::DEVICE_LOST)]);
}

#[test]
fn the_whole_gpu_and_an_instance_of_it_exclude_each_other_whatever_mode_it_is_in() {
    let mut desk = Desk::with(vec![split(0, 2), split(1, 2)]);
    let a = pod("a", "u1");
    desk.reserve(&a, &mig(1));
    desk.devices(vec![gpu(0), gpu(1)]);
    desk.kubelet(vec![told("x", &[uuid(0)])]);
    assert_eq!(desk.revoked(), [(holder(&a), removal::DISPLACED_BY_KUBELET)]);

    let mut desk = Desk::gpus(1);
    desk.reserve(&a, &whole(1));
    desk.devices(vec![split(0, 2)]);
    desk.kubelet(vec![told("x", &[instance(0, 1)])]);
    assert_eq!(desk.revoked(), [(holder(&a), removal::DISPLACED_BY_KUBELET)]);
}
