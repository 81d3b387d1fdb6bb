use super::*;

fn drifts_told(desk: &mut Desk) -> Vec<(bool, Drift)> {
    let told = std::mem::take(&mut desk.told);
    let drift = |effect| match effect {
        Effect::DriftBegan(drift) => Some((true, drift)),
        Effect::DriftEnded(drift) => Some((false, drift)),
        _ => None,
    };
    told.into_iter().filter_map(drift).collect()
}

fn is_out_of_band(desk: &Desk, index: u32) -> bool {
    desk.ledger.snapshot().node.device(&uuid(index)).unwrap().out_of_band
}

#[test]
fn a_strangers_process_takes_its_device_out_at_once_and_is_drift_after_the_grace() {
    let mut desk = Desk::gpus(2);
    desk.processes(vec![process(7, uuid(0))]);
    assert!(is_out_of_band(&desk, 0));
    assert_eq!(devices_of(&desk.reserve(&pod("a", "u1"), &whole(1))), [uuid(1)]);
    assert_eq!(desk.ledger.next_deadline(), Some(START + 60_000));
    desk.tick_after(60_000);
    let began = drifts_told(&mut desk);
    let (true, drift) = &began[0] else { panic!("{began:?}") };
    assert_eq!(
        (drift.reason, &drift.device),
        (DriftReason::ProcessWithoutAllocation, &Some(uuid(0)))
    );
    assert_eq!(drift.since_unix_ms, START);
    desk.processes(vec![]);
    assert!(!is_out_of_band(&desk, 0));
    assert_eq!(drifts_told(&mut desk), [(false, drift.clone())]);
}

#[test]
fn out_of_band_use_tells_since_when_and_by_whom() {
    let mut desk = Desk::gpus(1);
    desk.processes(vec![process(7, uuid(0))]);
    desk.now += 10_000;
    desk.processes(vec![process(8, uuid(0)), process(7, uuid(0)), process(7, uuid(0))]);
    let uses = desk.ledger.snapshot().out_of_band;
    let seen: Vec<_> = uses.iter().map(|found| (found.pid, found.since_unix_ms)).collect();
    assert_eq!(seen, [(7, START), (8, START + 10_000)]);
}

#[test]
fn a_claim_covers_every_process_on_its_device() {
    let mut desk = Desk::gpus(3);
    desk.acquire("l", &whole(1)).unwrap();
    desk.reserve(&pod("a", "u1"), &share(10));
    desk.kubelet(vec![told("x", &[uuid(2)])]);
    desk.processes((0..3).map(|index| process(index, uuid(index))).collect());
    assert!(desk.ledger.snapshot().out_of_band.is_empty());
    desk.release(lease_holder("l"));
    assert!(
        is_out_of_band(&desk, 0),
        "without its holder the process is a stranger's"
    );
}

#[test]
fn a_reserved_pods_process_elsewhere_is_covered_until_the_kubelet_told_where() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    let elsewhere = GpuProcess {
        pod_uid: Some(a.uid.clone()),
        ..process(7, uuid(1))
    };
    desk.processes(vec![elsewhere]);
    assert!(!is_out_of_band(&desk, 1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert!(is_out_of_band(&desk, 1), "the kubelet gave it another device");
}

#[test]
fn a_holder_that_comes_covers_the_process() {
    let mut desk = Desk::gpus(1);
    desk.processes(vec![process(7, uuid(0))]);
    desk.tick_after(60_000);
    assert_eq!(desk.drifts().len(), 1);
    desk.kubelet(vec![told("x", &[uuid(0)])]);
    assert!(desk.drifts().is_empty());
    assert!(!is_out_of_band(&desk, 0));
}

#[test]
fn a_process_in_a_mig_instance_takes_out_that_instance_only() {
    let mut desk = Desk::with(vec![split(0, 2)]);
    let inside = GpuProcess {
        mig_instance: Some(instance(0, 0)),
        ..process(7, uuid(0))
    };
    desk.processes(vec![inside]);
    assert!(!is_out_of_band(&desk, 0));
    let a = desk.reserve(&pod("a", "u1"), &mig(1));
    assert!(matches!(&a.grants[0].size, GrantSize::Mig { instance: at, .. } if *at == instance(0, 1)));
    assert!(desk.try_reserve(&pod("b", "u2"), &mig(1)).is_err());
    let somewhere = process(8, uuid(0));
    desk.release(holder(&pod("a", "u1")));
    desk.processes(vec![somewhere]);
    assert!(
        is_out_of_band(&desk, 0),
        "where the driver does not tell the instance, it may be any"
    );
}

#[test]
fn by_configuration_strangers_are_told_of_but_keep_nobody_away() {
    let config = LedgerConfig {
        count_out_of_band: false,
        ..LedgerConfig::default()
    };
    let mut desk = Desk::unreconciled();
    desk.ledger = Ledger::new(node_name(), config);
    desk.devices(vec![gpu(0)]);
    desk.kubelet(vec![]);
    desk.processes(vec![process(7, uuid(0))]);
    desk.tick_after(60_000);
    assert_eq!(desk.drifts(), [(DriftReason::ProcessWithoutAllocation, None)]);
    desk.reserve(&pod("a", "u1"), &whole(1));
    assert!(desk.drifts().is_empty(), "now somebody holds it");
}

#[test]
fn an_allocation_that_the_kubelet_no_longer_tells_is_drift_in_the_second_half_of_its_grace() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.kubelet(vec![]);
    desk.tick_after(14_999);
    assert!(desk.drifts().is_empty());
    desk.tick_after(1);
    assert_eq!(
        desk.drifts(),
        [(DriftReason::AllocationWithoutKubelet, Some(holder(&a)))]
    );
    desk.tick_after(15_000);
    desk.kubelet(vec![]);
    assert!(desk.drifts().is_empty());
    let told: Vec<_> = drifts_told(&mut desk).into_iter().map(|(began, _)| began).collect();
    assert_eq!(told, [true, false], "each is told once");
}

#[test]
fn a_held_device_that_stays_missing_is_drift() {
    let mut desk = Desk::gpus(1);
    let lease = desk.acquire("l", &whole(1)).unwrap();
    desk.devices(vec![]);
    desk.tick_after(60_000);
    assert_eq!(desk.drifts(), [(DriftReason::DeviceMissing, Some(lease.holder))]);
    desk.devices(vec![gpu(0)]);
    assert!(desk.drifts().is_empty());
}

#[test]
fn a_disagreement_that_ends_within_the_grace_is_never_told() {
    let mut desk = Desk::gpus(1);
    desk.acquire("l", &whole(1)).unwrap();
    desk.devices(vec![]);
    desk.tick_after(59_999);
    desk.devices(vec![gpu(0)]);
    desk.tick_after(600_000);
    assert!(drifts_told(&mut desk).is_empty());
}

#[test]
fn a_pod_on_an_unhealthy_device_is_drift_and_a_lease_there_is_not() {
    let mut desk = Desk::gpus(2);
    let a = pod("a", "u1");
    desk.reserve(&a, &whole(1));
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.acquire("l", &whole(1)).unwrap();
    desk.devices(vec![sick(0, Health::Unhealthy), sick(1, Health::Unhealthy)]);
    desk.tick_after(60_000);
    assert_eq!(desk.drifts(), [(DriftReason::AssignedUnusable, Some(holder(&a)))]);
}

#[test]
fn a_kubelet_that_gives_more_than_there_is_leaves_nothing_free_and_is_drift() {
    let mut desk = Desk::gpus(1);
    let a = pod("a", "u1");
    desk.reserve(&a, &share(600));
    desk.kubelet(vec![told("a", &[uuid(0)]), told("x", &[uuid(0)])]);
    assert_eq!(desk.free_milli(0), 0);
    desk.tick_after(60_000);
    assert_eq!(desk.drifts(), [(DriftReason::OverCommitted, None)]);
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.now += 30_000;
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    assert!(desk.drifts().is_empty());
    assert_eq!(desk.free_milli(0), 400);
}
