use super::*;
use crate::ReplayError;

/// A desk with one claim of every kind, and a cordon.
fn busy() -> Desk {
    let mut desk = Desk::with(vec![gpu(0), gpu(1), gpu(2), gpu(3), split(4, 2)]);
    desk.reserve(&pod("a", "u9"), &whole(1));
    desk.reserve(&pod("b", "u2"), &share(250));
    desk.reserve(&pod("c", "u3"), &mig(1));
    desk.acquire("l", &whole(1)).unwrap();
    desk.apply(Event::SetSchedulable {
        device: uuid(3),
        schedulable: false,
        message: "fan".to_owned(),
    })
    .unwrap();
    desk.kubelet(vec![told("a", &[uuid(0)])]);
    desk.release(holder(&pod("c", "u3")));
    desk
}

fn book(desk: &Desk) -> Snapshot {
    let mut snapshot = desk.ledger.snapshot();
    Arc::make_mut(&mut snapshot.node).generation = 0;
    snapshot
}

fn reconcile_again(desk: &mut Desk) {
    desk.devices(vec![gpu(0), gpu(1), gpu(2), gpu(3), split(4, 2)]);
    desk.kubelet(vec![told("a", &[uuid(0)])]);
}

#[test]
fn the_records_give_the_same_book() {
    let first = busy();
    let mut second = first.restarted(&first.journal);
    reconcile_again(&mut second);
    assert_eq!(book(&second), book(&first));
}

#[test]
fn a_compacted_journal_gives_the_same_book_and_order() {
    let first = busy();
    let compact = first.ledger.compact();
    assert!(compact.len() < first.journal.len());
    let claims = compact.iter().filter_map(|record| match record {
        Record::Put(claim) => Some(claim.holder.to_string()),
        _ => None,
    });
    assert_eq!(
        claims.collect::<Vec<_>>(),
        ["pod u9", "pod u2", "lease l"],
        "in the order of their coming"
    );
    let mut second = first.restarted(&compact);
    assert_eq!(second.ledger.compact(), compact);
    reconcile_again(&mut second);
    assert_eq!(book(&second), book(&first));
}

#[test]
fn records_survive_their_way_through_json() {
    for record in busy().journal {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}

#[test]
fn no_generation_is_told_twice_however_often_the_daemon_restarts() {
    let mut desk = Desk::gpus(1);
    let mut last = desk.ledger.snapshot().generation();
    for round in 0..5 {
        let a = pod("a", "u1");
        for _ in 0..700 {
            desk.reserve(&a, &whole(1));
            desk.release(holder(&a));
        }
        let told = desk.ledger.snapshot().generation();
        assert_eq!(told, last + 1400, "round {round}");
        let journal = desk.journal.clone();
        desk = desk.restarted(&journal);
        desk.journal = journal;
        assert!(desk.ledger.snapshot().generation() > told);
        reconcile_again(&mut desk);
        last = desk.ledger.snapshot().generation();
    }
    let blocks = desk
        .journal
        .iter()
        .filter(|record| matches!(record, Record::Generation(_)))
        .count();
    assert!(
        (5..20).contains(&blocks),
        "they are reserved in blocks, not one by one: {blocks}"
    );
}

#[test]
fn a_crash_in_the_midst_of_an_events_records_is_mended_at_the_reconcile() {
    let mut first = Desk::gpus(2);
    let (a, b) = (pod("a", "u1"), pod("b", "u2"));
    first.reserve(&a, &whole(1));
    first.reserve(&b, &whole(1));
    let written = first.journal.len();
    let list = vec![told("a", &[uuid(1)])];
    first.kubelet(list.clone());
    assert_eq!(first.journal.len(), written + 2);
    for cut in [written, written + 1] {
        let mut desk = first.restarted(&first.journal[..cut]);
        desk.devices(vec![gpu(0), gpu(1)]);
        desk.kubelet(list.clone());
        assert_eq!(devices_of(&desk.claim_of(&a).unwrap()), [uuid(1)]);
        assert_eq!(devices_of(&desk.claim_of(&b).unwrap()), [uuid(0)], "cut after {cut}");
    }
}

#[test]
fn records_that_no_ledger_wrote_are_refused() {
    let mut desk = Desk::gpus(1);
    let good = desk.reserve(&pod("a", "u1"), &whole(1));
    let bad = [
        Claim {
            state: ClaimState::Leased,
            ..good.clone()
        },
        Claim {
            holder: Holder::Foreign("prod/a".to_owned()),
            ..good.clone()
        },
        Claim {
            pod: Some(pod("a", "u2")),
            ..good.clone()
        },
        Claim {
            grants: vec![],
            ..good.clone()
        },
        Claim {
            grants: vec![Grant {
                device: uuid(0),
                size: GrantSize::Share(Room::default()),
            }],
            ..good.clone()
        },
    ];
    for claim in bad {
        let mut ledger = Ledger::new(node_name(), LedgerConfig::default());
        let error = ledger.replay(Record::Put(claim)).unwrap_err();
        assert_eq!(error.reason(), "BadClaim", "{error}");
        assert!(ledger.snapshot().claims.is_empty());
    }
    assert_eq!(desk.ledger.replay(Record::Put(good)), Err(ReplayError::AlreadyRunning));
}

#[test]
fn sums_of_absurd_records_do_not_overflow() {
    let mut desk = Desk::unreconciled();
    let huge = GrantSize::Share(Room {
        milli: MilliGpu::new(u32::MAX),
        memory: MemoryBytes::new(u64::MAX),
    });
    let shape = Shape::gpu(GpuShape::share(None, Some(MemoryBytes::new(u64::MAX)), 1).unwrap());
    for n in 0..4 {
        let pod = pod("a", &format!("u{n}"));
        let claim = Claim {
            holder: holder(&pod),
            pod: Some(pod),
            shape: shape.clone(),
            grants: vec![
                Grant {
                    device: uuid(0),
                    size: huge.clone()
                };
                2
            ],
            state: ClaimState::Allocated { since_unix_ms: START },
            granted_unix_ms: u64::MAX,
            client: String::new(),
            decision_id: String::new(),
        };
        desk.ledger.replay(Record::Put(claim)).unwrap();
    }
    desk.devices(vec![gpu(0)]);
    desk.kubelet(vec![]);
    assert_eq!(desk.free_milli(0), 0);
}

#[test]
fn a_lease_survives_the_restart_until_the_shell_ends_it() {
    let mut first = Desk::gpus(1);
    let lease = first.acquire("l", &whole(1)).unwrap();
    let mut desk = first.restarted(&first.journal);
    desk.devices(vec![gpu(0)]);
    desk.kubelet(vec![]);
    assert_eq!(desk.acquire("l", &whole(1)).unwrap(), lease, "its client came back");
    assert!(desk.release(lease.holder));
    assert_eq!(desk.free_milli(0), 1000);
}

#[test]
fn records_come_before_notices_and_changed_comes_last() {
    let mut desk = Desk::without_kubelet(1);
    desk.reserve(&pod("a", "u1"), &whole(1));
    let mut effects = Vec::new();
    desk.ledger
        .apply(START + 300_000, reserve(&pod("b", "u2"), &whole(1)), &mut effects)
        .unwrap();
    let kinds: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Persist(_) => "record",
            Effect::Changed => "changed",
            _ => "notice",
        })
        .collect();
    assert_eq!(kinds, ["record", "record", "notice", "changed"]);
}
