use super::*;

#[test]
fn a_reservation_lapses_at_its_deadline_and_not_before() {
    let mut desk = Desk::gpus(1);
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
    let mut desk = Desk::gpus(1);
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
fn what_fell_due_while_the_daemon_was_down_waits_for_the_kubelets_first_list() {
    let mut first = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    first.reserve(&a, &share(300));
    first.reserve(&b, &whole(1));
    let mut desk = first.restarted(&first.journal);
    desk.tick_after(400_000);
    desk.devices(vec![gpu(0), gpu(1)]);
    assert_eq!(desk.ledger.next_deadline(), None, "there is nothing to do before");
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert_eq!(desk.free_milli(0), 700);
    assert_eq!(desk.revoked(), [(holder(&b), removal::LAPSED)]);
}

#[test]
fn a_clock_that_goes_back_cuts_deadlines_to_the_longest_life() {
    let mut desk = Desk::gpus(1);
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
    desk.kubelet(vec![]);
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
