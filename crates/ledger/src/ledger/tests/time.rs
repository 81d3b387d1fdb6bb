use super::*;

#[test]
fn without_a_kubelet_a_reservation_lapses_at_its_deadline_and_not_before() {
    let mut desk = Desk::without_kubelet(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    assert_eq!(desk.ledger.next_deadline(), Some(START + 300_000));
    desk.tick_after(299_999);
    assert!(desk.claim_of(&a).is_some());
    desk.tick_after(1);
    assert_eq!(desk.revoked(), [(holder(&a), removal::LAPSED)]);
    assert_eq!(desk.free_milli(0), 1000);
    assert_eq!(desk.ledger.next_deadline(), None);
}

#[test]
fn a_request_finds_what_is_due_lapsed_without_a_tick() {
    let mut desk = Desk::without_kubelet(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.now += 300_000;
    desk.reserve(&pod("b", "u2"), &whole(1));
    assert_eq!(desk.revoked(), [(holder(&a), removal::LAPSED)]);
}

#[test]
fn a_pod_that_the_kubelet_confirms_in_the_instant_of_its_deadline_has_made_it() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.now += 300_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert!(matches!(desk.claim_of(&a).unwrap().state, ClaimState::Allocated { .. }));
}

#[test]
fn what_fell_due_while_the_daemon_was_down_waits_until_the_kubelet_was_heard_for_the_grace() {
    let mut first = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    first.reserve(&a, &share(300));
    first.reserve(&b, &whole(1));
    let mut desk = first.restarted(&first.journal);
    desk.tick_after(400_000);
    desk.devices(vec![gpu(0), gpu(1)]);
    assert_eq!(desk.ledger.next_deadline(), None, "there is nothing to do before");
    // The machine was booted: the pods are yet to be admitted.
    desk.kubelet(vec![]);
    desk.now += 15_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert_eq!(desk.free_milli(0), 700);
    desk.tick_after(14_999);
    assert!(desk.claim_of(&b).is_some());
    desk.tick_after(1);
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert_eq!(desk.revoked(), [(holder(&b), removal::LAPSED)]);
}

#[test]
fn a_reservation_does_not_lapse_while_the_kubelet_is_not_heard() {
    let mut desk = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    desk.reserve(&a, &whole(1));
    desk.reserve(&b, &whole(1));
    desk.now += 30_000;
    desk.kubelet(vec![]);
    desk.tick_after(3_600_000);
    assert!(
        desk.acquire("l", &whole(1)).is_err(),
        "the pod may run: its GPU is nobody else's"
    );
    // It was down, and its first lists tell nothing of what runs.
    desk.kubelet(vec![]);
    desk.now += 15_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert_eq!(desk.revoked(), []);
    desk.now += 15_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert_eq!(desk.revoked(), [(holder(&b), removal::LAPSED)]);
    desk.acquire("l", &whole(1)).unwrap();
}

#[test]
fn with_a_kubelet_a_reservation_lapses_with_the_first_list_from_its_deadline_on() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    for _ in 0..14 {
        desk.now += 20_000;
        desk.kubelet(vec![]);
    }
    desk.now += 19_999;
    desk.kubelet(vec![]);
    desk.tick_after(1);
    assert!(desk.claim_of(&a).is_some(), "a list before the deadline says nothing");
    desk.kubelet(vec![]);
    assert_eq!(desk.revoked(), [(holder(&a), removal::LAPSED)]);
}

#[test]
fn a_clock_that_goes_back_cuts_deadlines_to_the_longest_life() {
    let mut desk = Desk::without_kubelet(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.now -= 86_400_000;
    desk.apply(Event::Tick).unwrap();
    let deadline_unix_ms = desk.now + 3_600_000;
    let cut = desk.claim_of(&a).unwrap();
    assert_eq!(cut.state, ClaimState::Reserved { deadline_unix_ms });
    assert_eq!(desk.journal.last(), Some(&Record::Put(cut)));
    desk.tick_after(3_600_000);
    assert_eq!(desk.revoked(), [(holder(&a), removal::LAPSED)]);
}

#[test]
fn a_clock_that_goes_back_makes_no_grace_longer() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.kubelet(vec![]);
    desk.processes(vec![process(7, uuid(1))]);
    desk.now -= 86_400_000;
    desk.tick_after(0);
    desk.tick_after(60_000);
    let reasons: Vec<_> = desk.drifts().into_iter().map(|(reason, _)| reason).collect();
    let expected = [
        DriftReason::AllocationWithoutKubelet,
        DriftReason::ProcessWithoutAllocation,
    ];
    assert_eq!(reasons, expected);
    desk.kubelet(vec![]);
    assert_eq!(desk.claim_of(&a), None);
}

#[test]
fn a_clock_that_is_behind_the_journal_cuts_deadlines_too() {
    let mut first = Desk::gpus(1);
    let a = pod("a", "u1");
    first.reserve(&a, &whole(1));
    let mut desk = first.restarted(&first.journal);
    desk.now -= 86_400_000;
    desk.devices(vec![gpu(0)]);
    desk.apply(Event::NoKubelet).unwrap();
    desk.tick_after(3_600_000);
    assert_eq!(desk.revoked(), [(holder(&a), removal::LAPSED)]);
}

#[test]
fn the_end_of_time_is_no_overflow() {
    let mut desk = Desk::gpus(2);
    desk.now = u64::MAX - 1;
    desk.reserve(&pod("a", "u1"), &whole(1));
    desk.processes(vec![process(7, uuid(1))]);
    desk.tick_after(1);
}
