use berth_placement::Reason;

use super::*;

#[test]
fn nothing_is_granted_before_the_driver_and_the_kubelet_were_heard() {
    let mut desk = Desk::unreconciled();
    let pod = pod("a", "u1");
    assert_eq!(desk.try_reserve(&pod, &whole(1)), Err(RequestRefused::NotReconciled));
    desk.devices(vec![gpu(0)]);
    assert_eq!(desk.try_reserve(&pod, &whole(1)), Err(RequestRefused::NotReconciled));
    assert_eq!(desk.acquire("l", &whole(1)), Err(RequestRefused::NotReconciled));
    assert!(!desk.ledger.snapshot().reconciled);
    desk.kubelet(vec![]);
    assert!(desk.ledger.snapshot().reconciled);
    assert_eq!(devices_of(&desk.reserve(&pod, &whole(1))), [uuid(0)]);
}

#[test]
fn a_node_without_kubelet_grants_once_the_driver_was_heard() {
    let mut desk = Desk::unreconciled();
    desk.apply(Event::NoKubelet).unwrap();
    assert_eq!(desk.acquire("l", &whole(1)), Err(RequestRefused::NotReconciled));
    desk.devices(vec![gpu(0)]);
    assert_eq!(devices_of(&desk.acquire("l", &whole(1)).unwrap()), [uuid(0)]);
}

#[test]
fn release_and_cordon_work_before_the_book_is_reconciled() {
    let mut first = Desk::gpus(2);
    let pod = pod("a", "u1");
    first.reserve(&pod, &whole(1));
    let mut desk = first.restarted(&first.journal);
    assert!(desk.release(holder(&pod)));
    let cordon = |device| Event::SetSchedulable {
        device,
        schedulable: false,
        message: "fan".to_owned(),
    };
    assert_eq!(desk.apply(cordon(uuid(0))), Ok(Reply::Done));
    let unknown = desk.apply(cordon(instance(0, 0)));
    assert_eq!(
        unknown,
        Err(RequestRefused::UnknownDevice(instance(0, 0))),
        "only GPUs can be cordoned"
    );
    desk.devices(vec![gpu(0), gpu(1)]);
    desk.kubelet(vec![]);
    assert_eq!(devices_of(&desk.reserve(&pod, &whole(1))), [uuid(1)]);
}

#[test]
fn asked_again_a_holder_gets_the_same_grant_and_a_later_deadline() {
    let mut desk = Desk::gpus(2);
    let pod = pod("a", "u1");
    let first = desk.reserve(&pod, &whole(1));
    desk.now += 1000;
    let again = desk.apply(reserve(&pod, &whole(1))).unwrap();
    let expected = Claim {
        state: ClaimState::Reserved {
            deadline_unix_ms: START + 1000 + 300_000,
        },
        ..first
    };
    assert_eq!(
        again,
        Reply::Granted {
            claim: expected.clone(),
            existing: true
        }
    );
    assert_eq!(desk.journal.last(), Some(&Record::Put(expected)));
}

#[test]
fn a_deadline_is_never_brought_forward() {
    let mut desk = Desk::gpus(1);
    let pod = pod("a", "u1");
    let long = desk.reserve(&pod, &whole(1));
    let mut short = reserve(&pod, &whole(1));
    if let Event::Reserve { ttl_ms, .. } = &mut short {
        *ttl_ms = 1;
    }
    let written = desk.journal.len();
    assert_eq!(claim_of(&desk.apply(short).unwrap()), long);
    assert_eq!(desk.journal.len(), written, "nothing changed, nothing is written");
}

#[test]
fn a_wish_for_a_longer_life_than_allowed_is_cut() {
    let mut desk = Desk::gpus(1);
    let mut forever = reserve(&pod("a", "u1"), &whole(1));
    if let Event::Reserve { ttl_ms, .. } = &mut forever {
        *ttl_ms = u64::MAX;
    }
    let claim = claim_of(&desk.apply(forever).unwrap());
    let deadline_unix_ms = START + LedgerConfig::default().max_ttl_ms;
    assert_eq!(claim.state, ClaimState::Reserved { deadline_unix_ms });
}

#[test]
fn a_holder_that_asks_for_another_shape_is_refused_and_keeps_what_it_has() {
    let mut desk = Desk::gpus(4);
    let pod = pod("a", "u1");
    let held = desk.reserve(&pod, &whole(1));
    let refused = desk.try_reserve(&pod, &whole(2)).unwrap_err();
    assert_eq!(refused.reason(), "HolderHasOther");
    assert_eq!(desk.claim_of(&pod), Some(held));
    desk.acquire("l", &whole(1)).unwrap();
    assert_eq!(desk.acquire("l", &share(10)).unwrap_err().reason(), "HolderHasOther");
}

#[test]
fn an_allocated_pod_that_asks_again_gets_the_same_answer() {
    let mut desk = Desk::gpus(2);
    let pod = pod("a", "u1");
    desk.reserve(&pod, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(1)])]);
    let allocated = desk.claim_of(&pod).unwrap();
    let written = desk.journal.len();
    assert_eq!(desk.reserve(&pod, &whole(1)), allocated);
    assert_eq!(desk.journal.len(), written);
}

#[test]
fn a_request_for_nothing_is_refused() {
    let mut desk = Desk::gpus(1);
    let zero = Shape::gpu(GpuShape::Whole { count: 0 });
    for shape in [Shape::default(), zero, Shape::gpu(Claim::shape_of_stranger(1))] {
        let refused = desk.try_reserve(&pod("a", "u1"), &shape);
        assert_eq!(refused, Err(RequestRefused::NothingAsked), "{shape}");
    }
}

#[test]
fn a_full_node_refuses_with_the_reason_that_explain_gives() {
    let mut desk = Desk::gpus(1);
    desk.acquire("l", &whole(1)).unwrap();
    let RequestRefused::NoRoom(refusal) = desk.try_reserve(&pod("a", "u1"), &whole(1)).unwrap_err() else {
        panic!("another refusal");
    };
    assert_eq!(refusal.reason, Reason::DeviceHeld);
    assert_eq!(desk.ledger.explain(&whole(1)).plan, Err(refusal));
}

#[test]
fn the_preferred_devices_are_taken_where_they_are_free() {
    let mut desk = Desk::gpus(3);
    let mut wish = reserve(&pod("a", "u1"), &whole(1));
    if let Event::Reserve { preferred, .. } = &mut wish {
        preferred.push(uuid(2));
    }
    assert_eq!(devices_of(&claim_of(&desk.apply(wish).unwrap())), [uuid(2)]);
}

#[test]
fn what_is_released_is_free_again_and_no_more() {
    let mut desk = Desk::gpus(1);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    desk.reserve(&a, &share(300));
    desk.reserve(&b, &share(500));
    assert_eq!(desk.free_milli(0), 200);
    assert!(desk.release(holder(&a)));
    assert_eq!(desk.free_milli(0), 500);
    assert!(!desk.release(holder(&a)), "twice is once");
    assert_eq!(desk.free_milli(0), 500);
    assert!(desk.revoked().is_empty(), "who asked for it is not told");
}

#[test]
fn a_released_pod_that_the_kubelet_still_tells_of_keeps_its_device_as_a_foreign_one() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert!(desk.release(holder(&a)));
    assert_eq!(desk.claim_of(&a), None);
    assert_eq!(devices_of(&desk.foreign("prod/a").unwrap()), [uuid(0)]);
    assert!(desk.try_reserve(&pod("b", "u2"), &whole(1)).is_err());
    assert!(
        !desk.release(Holder::Foreign("prod/a".to_owned())),
        "a foreign claim is the kubelet's"
    );
    assert!(desk.foreign("prod/a").is_some());
}

#[test]
fn a_released_pod_holds_its_device_while_lists_name_it_and_not_beyond_the_first_that_lacks_it() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    let list = vec![told("a", &[uuid(0)]), told("x", &[uuid(1)])];
    desk.kubelet(list.clone());
    desk.release(holder(&a));
    desk.now += 60_000;
    desk.kubelet(list);
    assert_eq!(desk.free_milli(0), 0, "the kubelet's word is the truth");
    desk.now += 1000;
    desk.kubelet(vec![]);
    assert_eq!((desk.free_milli(0), desk.foreign("prod/a")), (1000, None));
    assert!(
        desk.foreign("prod/x").is_some(),
        "of another pod silence proves nothing"
    );
}

#[test]
fn a_pod_that_comes_after_a_released_one_of_its_name_has_its_grace() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.release(holder(&a));
    desk.kubelet(vec![told("a", &[uuid(1)])]);
    desk.kubelet(vec![]);
    assert_eq!(devices_of(&desk.foreign("prod/a").unwrap()), [uuid(1)]);
}

#[test]
fn a_lease_is_not_confirmed_and_does_not_lapse() {
    let mut desk = Desk::gpus(1);
    let lease = desk.acquire("l", &share(500)).unwrap();
    desk.kubelet(vec![told("l", &[])]);
    desk.tick_after(86_400_000);
    desk.kubelet(vec![]);
    assert_eq!(desk.claim(&lease_holder("l")), Some(lease.clone()));
    assert_eq!(desk.acquire("l", &share(500)).unwrap(), lease, "idempotent by its id");
}
