//! A crash after any byte of the journal: nothing that was acknowledged is lost, nothing is held twice.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use berth_ledger::{Assignment, ClaimState, Event, Holder, LedgerConfig, Snapshot};
use berth_placement::{DeviceUuid, GpuShape, Grant, GrantSize};
use berth_runtime::ManualClock;

use super::{super::Acquired, NOW, Rig, share};
use crate::journal::tests::read_prefix;

/// Who holds what, without what comes from the kubelet alone.
type Held = BTreeMap<Holder, (Vec<Grant>, ClaimState)>;

fn held(book: &Snapshot) -> Held {
    let own = book
        .claims
        .iter()
        .filter(|claim| !matches!(claim.holder, Holder::Foreign(_)));
    own.map(|claim| (claim.holder.clone(), (claim.grants.clone(), claim.state.clone())))
        .collect()
}

fn assert_within_capacity(held: &Held, what: &str) {
    let mut milli: BTreeMap<&DeviceUuid, u32> = BTreeMap::new();
    for grant in held.values().flat_map(|(grants, _)| grants) {
        *milli.entry(&grant.device).or_default() += match &grant.size {
            GrantSize::Whole => 1000,
            GrantSize::Share(room) => room.milli.get(),
            GrantSize::Mig { .. } => 0,
        };
    }
    assert!(milli.values().all(|milli| *milli <= 1000), "{what}: {milli:?}");
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(limit)).unwrap()
    }

    /// An index into as many things; none into nothing.
    fn index(&mut self, len: usize) -> usize {
        self.below(u32::try_from(len.max(1)).unwrap()) as usize
    }
}

/// Does `steps` things to the book, one after the other. After each: how long the journal is, and what is held.
async fn live(rig: &Rig, journal: &Path, steps: u32) -> Vec<(u64, Held)> {
    let mut dice = Dice(7);
    let mut assigned: Vec<Assignment> = Vec::new();
    let mut acknowledged = Vec::new();
    for step in 0..steps {
        let before = rig.settled().await;
        let reservations: Vec<_> = before
            .book
            .claims
            .iter()
            .filter(|claim| matches!(claim.state, ClaimState::Reserved { .. }))
            .collect();
        let pick = reservations.get(dice.index(reservations.len()));
        match dice.below(10) {
            0..=3 => drop(
                rig.reserve(&format!("uid-{step}"), share(100 + 100 * dice.below(9)))
                    .await,
            ),
            4 => drop(
                rig.reserve(&format!("uid-{step}"), GpuShape::whole(1 + dice.below(3)).unwrap())
                    .await,
            ),
            5 | 6 => {
                if let Some(claim) = pick {
                    rig.book
                        .request(Event::Release {
                            holder: claim.holder.clone(),
                        })
                        .await
                        .unwrap();
                }
            }
            7 => {
                if let Ok(Acquired::Granted(lease)) = rig.acquire(&format!("lease-{step}"), share(300), false).await {
                    assert_eq!(lease.claim.state, ClaimState::Leased);
                }
            }
            8 => {
                let lease = before
                    .book
                    .claims
                    .iter()
                    .find(|claim| matches!(claim.holder, Holder::Lease(_)));
                if let Some(claim) = lease {
                    rig.book.end_lease(claim.holder.clone()).await;
                }
            }
            _ => {
                // The kubelet starts a pod, where it likes; one that ran ends.
                if let Some(pod) = pick.and_then(|claim| claim.pod.clone()) {
                    let devices = pick.unwrap().grants.iter().map(|grant| grant.device.clone()).collect();
                    assigned.push(Assignment {
                        namespace: pod.namespace,
                        name: pod.name,
                        devices,
                        shared: false,
                    });
                }
                if assigned.len() > 3 {
                    assigned.remove(0);
                    rig.kubelet(assigned.clone()).await;
                    acknowledged.push(state(rig, journal).await);
                    rig.clock.advance(Duration::from_secs(31));
                    acknowledged.push(state(rig, journal).await);
                }
                rig.kubelet(assigned.clone()).await;
            }
        }
        acknowledged.push(state(rig, journal).await);
        // What falls due meanwhile is a step of its own.
        rig.clock.advance(Duration::from_millis(250));
        acknowledged.push(state(rig, journal).await);
    }
    acknowledged
}

async fn state(rig: &Rig, journal: &Path) -> (u64, Held) {
    let view = rig.settled().await;
    (fs::metadata(journal).unwrap().len(), held(&view.book))
}

#[tokio::test]
async fn a_crash_after_any_byte_loses_no_grant_and_makes_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    rig.settled().await;
    let begun = fs::metadata(&journal).unwrap().len();
    let acknowledged = live(&rig, &journal, 600).await;
    rig.crash().await;

    let bytes = fs::read(&journal).unwrap();
    let lines = bytes.split(|byte| *byte == b'\n').count() - 1;
    assert!(lines > 300, "{lines} lines are too few to mean anything");
    let mut checked = 0;
    for len in 0..=bytes.len() {
        let prefix = &bytes[..len];
        // The last thing acknowledged by then.
        let known = acknowledged.iter().rev().find(|(written, _)| *written <= len as u64);
        let found = read_prefix(prefix);
        if let Some(torn) = found.torn {
            // Reading stops where the last whole line ends, which the shorter prefix was checked for.
            assert_eq!(
                torn,
                len - prefix.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
            );
            continue;
        }
        let mut ledger = berth_ledger::Ledger::new("node-a".parse().unwrap(), LedgerConfig::default());
        for record in found.records {
            ledger.replay(record).unwrap();
        }
        let replayed = held(&ledger.snapshot());
        assert_within_capacity(&replayed, "replayed");
        let Some((written, expected)) = known else {
            assert!(
                len as u64 <= begun || replayed.len() <= 1,
                "more is held than was ever asked for"
            );
            continue;
        };
        checked += 1;
        assert_eq!(*written, len as u64, "one event, one line: no line can split it");
        assert_eq!(replayed, *expected, "after {len} bytes");
    }
    assert!(checked > 300, "{checked}");
}

#[tokio::test]
async fn a_restart_continues_the_same_book() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    live(&rig, &dir.path().join("journal"), 80).await;
    let before = rig.settled().await;
    rig.stop().await;

    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    let after = rig.settled().await;
    assert!(after.generation() > before.generation());
    assert_eq!(held(&after.book), held(&before.book));
    rig.stop().await;
}
