use super::*;

#[test]
fn the_kubelet_confirms_a_reservation() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    let reserved = desk.reserve(&a, &whole(1));
    desk.now += 5;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    let allocated = Claim {
        state: ClaimState::Allocated {
            since_unix_ms: START + 5,
        },
        ..reserved
    };
    assert_eq!(desk.claim_of(&a), Some(allocated.clone()));
    assert_eq!(desk.journal.last(), Some(&Record::Put(allocated)));
    desk.tick_after(86_400_000);
    assert!(desk.claim_of(&a).is_some(), "what is allocated does not lapse");
}

#[test]
fn the_same_list_again_changes_nothing() {
    let mut desk = Desk::with(vec![gpu(0), gpu(1), split(2, 2)]);
    desk.reserve(&pod("a", "u1"), &whole(1));
    let list = vec![
        told("a", &[uuid(1)]),
        told("b", &[instance(2, 0), instance(2, 1)]),
        told_shared("c", &[uuid(0)]),
        told_shared("d", &[uuid(0), uuid(0)]),
    ];
    desk.kubelet(list.clone());
    let generation = desk.ledger.snapshot().generation();
    desk.now += 1000;
    desk.kubelet(list.clone());
    desk.kubelet(list.into_iter().rev().collect());
    assert_eq!(desk.ledger.snapshot().generation(), generation);
}

#[test]
fn the_kubelets_choice_of_devices_wins() {
    let mut desk = Desk::gpus(3);
    let a = pod("a", "u1");
    assert_eq!(devices_of(&desk.reserve(&a, &whole(1))), [uuid(0)]);
    desk.kubelet(vec![told("a", &[uuid(2)])]);
    assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(2)]);
    assert_eq!((desk.free_milli(0), desk.free_milli(2)), (1000, 0));
    desk.tick_after(3_600_000);
    assert!(desk.drifts().is_empty(), "that is no drift");
}

#[test]
fn a_share_keeps_its_size_where_the_kubelet_tells_a_gpu_or_replicas() {
    for list in [
        told("a", &[uuid(1)]),
        told_shared("a", &[uuid(1)]),
        told_shared("a", &[uuid(1), uuid(1), uuid(1)]),
    ] {
        let mut desk = Desk::gpus(2);
        let a = pod("a", "u1");
        desk.reserve(&a, &share(300));
        desk.kubelet(vec![list.clone()]);
        assert_eq!((desk.free_milli(0), desk.free_milli(1)), (1000, 700), "{list:?}");
    }
}

#[test]
fn a_share_that_is_not_the_kubelets_to_give_is_confirmed_on_its_plan() {
    let mut desk = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    let planned = desk.reserve(&a, &share(300));
    desk.reserve(&b, &whole(1));
    desk.kubelet(vec![told("a", &[]), told("b", &[])]);
    let confirmed = desk.claim_of(&a).unwrap();
    assert_eq!(confirmed.grants, planned.grants);
    assert!(matches!(confirmed.state, ClaimState::Allocated { .. }));
    let other = desk.claim_of(&b).unwrap();
    assert!(
        matches!(other.state, ClaimState::Reserved { .. }),
        "a whole GPU is the kubelet's to give"
    );
}

#[test]
fn a_pod_that_nobody_reserved_for_is_held_as_foreign_and_not_written() {
    let mut desk = Desk::with(vec![gpu(0), gpu(1), split(2, 2)]);
    let written = desk.journal.len();
    desk.kubelet(vec![told("x", &[uuid(0)]), told("y", &[instance(2, 1)])]);
    let x = desk.foreign("prod/x").unwrap();
    assert_eq!((devices_of(&x), x.shape), (vec![uuid(0)], whole(1)));
    let y = desk.foreign("prod/y").unwrap();
    assert_eq!(y.shape, mig(1));
    assert_eq!(devices_of(&y), [uuid(2)]);
    assert_eq!(devices_of(&desk.reserve(&pod("a", "u1"), &whole(1))), [uuid(1)]);
    let free = desk.reserve(&pod("b", "u2"), &mig(1));
    assert!(matches!(&free.grants[0].size, GrantSize::Mig { instance: at, .. } if *at == instance(2, 0)));
    let foreign = |record: &Record| matches!(record, Record::Put(claim) if claim.pod.is_none());
    assert!(!desk.journal[written..].iter().any(foreign));
}

#[test]
fn foreign_pods_that_share_a_device_leave_nothing_of_it_and_are_no_drift() {
    let mut desk = Desk::gpus(1);
    desk.kubelet(vec![
        told_shared("x", &[uuid(0)]),
        told_shared("y", &[uuid(0), uuid(0)]),
    ]);
    assert_eq!(desk.free_milli(0), 0);
    assert!(desk.try_reserve(&pod("a", "u1"), &share(1)).is_err());
    desk.tick_after(3_600_000);
    assert!(desk.drifts().is_empty());
}

#[test]
fn an_allocation_outlives_silence_for_the_grace_and_ends_on_a_list_after_it() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.now += 1000;
    desk.kubelet(vec![]);
    assert!(
        desk.try_reserve(&pod("b", "u2"), &whole(1)).is_err(),
        "an empty list frees nothing at once"
    );
    desk.now += 29_999;
    desk.kubelet(vec![]);
    assert!(desk.claim_of(&a).is_some());
    desk.tick_after(600_000);
    assert!(
        desk.claim_of(&a).is_some(),
        "a kubelet that does not answer ends nothing"
    );
    desk.kubelet(vec![]);
    assert_eq!(desk.claim_of(&a), None);
    assert_eq!(desk.revoked(), [(holder(&a), removal::POD_GONE)]);
    let removed = Record::Removed {
        holder: holder(&a),
        reason: "PodGone".to_owned(),
    };
    assert_eq!(desk.journal.last(), Some(&removed));
    desk.reserve(&pod("b", "u2"), &whole(1));
}

#[test]
fn an_allocation_that_is_told_again_begins_a_new_grace() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.kubelet(vec![]);
    desk.now += 29_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.now += 2000;
    desk.kubelet(vec![]);
    desk.now += 29_000;
    desk.kubelet(vec![]);
    assert!(desk.claim_of(&a).is_some());
}

#[test]
fn foreign_pods_outlive_silence_too() {
    let mut desk = Desk::gpus(1);
    desk.kubelet(vec![told("x", &[uuid(0)])]);
    desk.kubelet(vec![]);
    assert!(desk.try_reserve(&pod("a", "u1"), &whole(1)).is_err());
    desk.now += 30_000;
    desk.kubelet(vec![]);
    desk.reserve(&pod("a", "u1"), &whole(1));
    assert!(desk.revoked().is_empty());
}

#[test]
fn a_new_pod_of_an_old_name_is_confirmed_by_new_devices_and_the_old_one_goes() {
    let mut desk = Desk::gpus(2);
    let (old, new) = (pod("web-0", "u1"), pod("web-0", "u2"));
    desk.reserve(&old, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    desk.now += 1000;
    desk.reserve(&new, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(1)])]);
    assert_eq!(desk.claim_of(&old), None);
    assert_eq!(desk.revoked(), [(holder(&old), removal::REPLACED)]);
    let confirmed = desk.claim_of(&new).unwrap();
    assert!(matches!(confirmed.state, ClaimState::Allocated { .. }));
    assert_eq!(devices_of(&confirmed), [uuid(1)]);
}

#[test]
fn an_entry_that_tells_the_old_pods_devices_stays_with_it_for_the_grace() {
    let mut desk = Desk::gpus(2);
    let (old, new) = (pod("web-0", "u1"), pod("web-0", "u2"));
    let list = vec![told("web-0", &[uuid(0)])];
    desk.reserve(&old, &whole(1));
    desk.kubelet(list.clone());
    desk.now += 60_000;
    desk.reserve(&new, &whole(1));
    desk.now += 29_999;
    desk.kubelet(list.clone());
    assert!(desk.claim_of(&old).is_some());
    assert!(matches!(
        desk.claim_of(&new).unwrap().state,
        ClaimState::Reserved { .. }
    ));
    desk.now += 1;
    desk.kubelet(list);
    assert_eq!(desk.claim_of(&old), None);
    assert_eq!(devices_of(&desk.claim_of(&new).unwrap()), [uuid(0)]);
    assert_eq!(desk.free_milli(1), 1000);
}

#[test]
fn an_entry_that_was_gone_and_came_back_is_the_newer_pods() {
    let mut desk = Desk::gpus(2);
    let (old, new) = (pod("web-0", "u1"), pod("web-0", "u2"));
    desk.reserve(&old, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    desk.kubelet(vec![]);
    desk.reserve(&new, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    assert_eq!(desk.claim_of(&old), None);
    assert_eq!(devices_of(&desk.claim_of(&new).unwrap()), [uuid(0)]);
}

#[test]
fn an_entry_that_came_back_stays_with_its_pod_where_the_newer_one_has_its_own_devices() {
    let mut desk = Desk::gpus(2);
    let (old, new) = (pod("web-0", "u1"), pod("web-0", "u2"));
    desk.reserve(&old, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    desk.reserve(&new, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)]), told("web-0", &[uuid(1)])]);
    desk.kubelet(vec![]);
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    assert_eq!(devices_of(&desk.claim_of(&old).unwrap()), [uuid(0)]);
    assert_eq!(
        devices_of(&desk.claim_of(&new).unwrap()),
        [uuid(1)],
        "it is missed, for the grace"
    );
}

#[test]
fn a_running_share_keeps_its_size_when_its_devices_memory_changes() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &share(500));
    let list = vec![told("a", &[uuid(0)])];
    desk.kubelet(list.clone());
    let before = desk.claim_of(&a);
    let smaller = DeviceState {
        memory: MemoryBytes::new(76 * GIB),
        ..gpu(0)
    };
    desk.devices(vec![smaller]);
    desk.kubelet(list);
    assert_eq!(desk.claim_of(&a), before);
}

#[test]
fn two_entries_of_one_name_are_the_old_pod_and_the_new_one() {
    let mut desk = Desk::gpus(2);
    let (old, new) = (pod("web-0", "u1"), pod("web-0", "u2"));
    desk.reserve(&old, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(0)])]);
    desk.reserve(&new, &whole(1));
    desk.kubelet(vec![told("web-0", &[uuid(1)]), told("web-0", &[uuid(0)])]);
    assert_eq!(devices_of(&desk.claim_of(&old).unwrap()), [uuid(0)]);
    assert_eq!(devices_of(&desk.claim_of(&new).unwrap()), [uuid(1)]);
    desk.kubelet(vec![told("web-0", &[uuid(1)])]);
    assert_eq!(
        desk.claim_of(&old),
        None,
        "the kubelet shows the name once: the newer is meant"
    );
    assert!(desk.claim_of(&new).is_some());
}

#[test]
fn an_ended_pod_that_the_kubelet_still_tells_is_no_second_holder_beside_its_successor() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)]), told("a", &[uuid(0)])]);
    assert_eq!(desk.foreign("prod/a"), None);
    desk.tick_after(3_600_000);
    assert!(desk.drifts().is_empty());
}

#[test]
fn a_foreign_pods_entry_goes_to_a_reservation_of_that_name_after_the_grace_only() {
    let mut desk = Desk::gpus(2);
    let list = vec![told("a", &[uuid(0)])];
    desk.kubelet(list.clone());
    let a = pod("a", "u1");
    assert_eq!(devices_of(&desk.reserve(&a, &whole(1))), [uuid(1)]);
    desk.kubelet(list.clone());
    assert!(
        desk.foreign("prod/a").is_some(),
        "an earlier pod of that name may still be ending"
    );
    desk.now += 30_000;
    desk.kubelet(list);
    assert_eq!(desk.foreign("prod/a"), None);
    assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(0)]);
}

#[test]
fn an_instance_whose_gpu_comes_later_is_held_from_the_first_moment() {
    let mut desk = Desk::unreconciled();
    desk.kubelet(vec![told("x", &[instance(0, 1)])]);
    desk.devices(vec![split(0, 2)]);
    let a = desk.reserve(&pod("a", "u1"), &mig(1));
    assert!(matches!(&a.grants[0].size, GrantSize::Mig { instance: at, .. } if *at == instance(0, 0)));
    assert!(desk.try_reserve(&pod("b", "u2"), &mig(1)).is_err());
}

#[test]
fn without_a_kubelet_foreign_claims_go_and_allocations_stay() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)]), told("x", &[uuid(1)])]);
    desk.apply(Event::NoKubelet).unwrap();
    assert_eq!(desk.foreign("prod/x"), None);
    desk.tick_after(86_400_000);
    assert!(desk.claim_of(&a).is_some());
}
