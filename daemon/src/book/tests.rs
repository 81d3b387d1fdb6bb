//! The book end to end, without gRPC: a crash at every byte of the journal, a journal that cannot be written, leases that
//! outlive their daemon.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use berth_gpu::{
    DeviceFacts, DeviceReport, DriverState, HealthReport,
    inventory::{DriverFacts, MigReport},
};
use berth_ledger::{ClaimState, LedgerConfig};
use berth_placement::{
    ComputeMode, DeviceUuid, GpuShape, Grant, GrantSize, Health, LeaseId, MemoryBytes, MilliGpu, PodRef, PodUid,
};
use berth_runtime::{Clock as _, ManualClock, Readiness, SharedClock, metrics::latency_histogram};
use berth_testkit::spawn;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    conditions::ConditionType,
    journal::{JournalOptions, SyncMode, tests::read_prefix},
    metrics::Metrics,
};

const NOW: u64 = 1_700_000_000_000;
const DEVICES: u32 = 8;

struct Rig {
    clock: ManualClock,
    book: Book,
    stop: CancellationToken,
    actor: JoinHandle<()>,
}

impl Rig {
    /// On the state of `dir`, with the driver heard.
    async fn start(dir: &Path, clock: &ManualClock) -> Self {
        let shared = || -> SharedClock { clock.shared() };
        let mut registry = Registry::default();
        let journal = JournalOptions {
            dir: dir.to_owned(),
            node: "node-a".parse().unwrap(),
            sync: SyncMode::Group,
            clock: shared(),
            write_latency: latency_histogram(),
            sync_latency: latency_histogram(),
        };
        let options = ActorOptions {
            clock: shared(),
            metrics: Metrics::register(&mut registry, shared()),
            ready: Readiness::new(shared()).register("book"),
        };
        let (book, actor) = restore("node-a".parse().unwrap(), LedgerConfig::default(), journal, options).unwrap();
        let stop = CancellationToken::new();
        let actor = spawn(actor.run(stop.clone()));
        let ready = ConditionType::DriverReady.holds("Answering", "");
        book.observe_devices(Arc::new(inventory()), Vec::new(), ready).await;
        Self {
            clock: clock.clone(),
            book,
            stop,
            actor,
        }
    }

    async fn kubelet(&self, assigned: Vec<Assignment>) {
        self.book
            .observe_kubelet(assigned, ConditionType::KubeletReachable.holds("Answering", ""))
            .await;
    }

    async fn reserve(&self, uid: &str, gpu: GpuShape) -> Result<Claim, BookError> {
        let event = Event::Reserve {
            pod: pod(uid),
            shape: Shape::gpu(gpu),
            ttl_ms: 0,
            preferred: Vec::new(),
            client: "test".to_owned(),
            decision_id: String::new(),
        };
        match self.book.request(event).await?.reply {
            Reply::Granted { claim, .. } => Ok(claim),
            other => panic!("{other:?}"),
        }
    }

    async fn release(&self, uid: &str) -> Result<Answer, BookError> {
        self.book.request(Event::Release { holder: holder(uid) }).await
    }

    async fn acquire(&self, id: &str, gpu: GpuShape, wait: bool) -> Result<Acquired, BookError> {
        let lease: LeaseId = id.parse().unwrap();
        let event = Event::Acquire {
            lease,
            shape: Shape::gpu(gpu),
            client: "test".to_owned(),
        };
        self.book.acquire(event, wait).await
    }

    /// Waits until everything queued so far is done, and returns the view that came of it.
    async fn settled(&self) -> Arc<NodeView> {
        self.book.explain(Shape::gpu(GpuShape::None)).await.unwrap().1
    }

    async fn stop(self) {
        self.stop.cancel();
        self.actor.await.unwrap();
    }

    /// The process is gone between two instructions.
    async fn crash(self) {
        self.actor.abort();
        drop(self.actor.await);
    }
}

fn inventory() -> Inventory {
    let driver = DriverFacts {
        backend: "simulated",
        driver_version: "1".to_owned(),
        nvml_version: None,
        cuda_version: None,
    };
    let devices = (0..DEVICES).map(|index| DeviceReport {
        facts: Arc::new(DeviceFacts {
            uuid: uuid(index),
            index,
            pci_bus_id: None,
            product: "NVIDIA H100".to_owned(),
            model: "H100".parse().unwrap(),
            architecture: None,
            memory: MemoryBytes::from_gib(80),
            serial: None,
            compute_capability: None,
            compute_mode: ComputeMode::Default,
            numa_node: None,
            nvlink_peers: Vec::new(),
            nvlink_domain: Some(0),
            fabric: None,
            mig: MigReport::default(),
        }),
        health: HealthReport {
            state: Health::Healthy,
            since_unix_ms: NOW,
            reasons: Vec::new(),
        },
        sample: None,
        processes: Vec::new(),
        processes_unix_ms: None,
    });
    Inventory {
        generation: 1,
        driver: DriverState::Ready(driver),
        devices: devices.collect(),
        unidentified: Vec::new(),
    }
}

fn uuid(index: u32) -> DeviceUuid {
    format!("GPU-{index}").parse().unwrap()
}

fn pod(uid: &str) -> PodRef {
    PodRef::new("sr-test", uid, uid.parse().unwrap()).unwrap()
}

fn holder(uid: &str) -> Holder {
    Holder::Pod(uid.parse::<PodUid>().unwrap())
}

fn share(milli: u32) -> GpuShape {
    GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap()
}

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

#[tokio::test]
async fn whoever_has_an_answer_finds_it_in_the_published_view() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), &ManualClock::at_unix_ms(NOW)).await;
    rig.kubelet(Vec::new()).await;
    rig.reserve("a", share(500)).await.unwrap();
    assert!(rig.book.views().current().book.claim(&holder("a")).is_some());
    let answer = rig.release("a").await.unwrap();
    assert!(answer.view.book.claims.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn nothing_is_granted_while_the_journal_cannot_be_written_and_facts_still_count() {
    let dir = tempfile::tempdir().unwrap();
    // Where the journal is made is something else: as good as a full disk, and root cannot write it either.
    let in_the_way = dir.path().join("journal.new");
    fs::create_dir(&in_the_way).unwrap();
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    let refused = rig.reserve("a", share(500)).await.unwrap_err();
    assert_eq!(refused.reason(), "JournalUnavailable");
    let view = rig.settled().await;
    assert!(view.book.reconciled && view.book.claims.is_empty());
    assert!(!view.conditions.get(ConditionType::JournalHealthy).status);

    fs::remove_dir(&in_the_way).unwrap();
    clock.advance(Duration::from_secs(2));
    rig.reserve("a", share(500)).await.unwrap();
    assert!(rig.settled().await.conditions.get(ConditionType::JournalHealthy).status);
    rig.stop().await;
    let rig = Rig::start(dir.path(), &clock).await;
    assert_eq!(rig.settled().await.book.claims.len(), 1);
}

#[tokio::test]
async fn a_sync_that_failed_makes_everything_be_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    rig.reserve("a", share(500)).await.unwrap();
    rig.reserve("gone", share(100)).await.unwrap();
    rig.release("gone").await.unwrap();
    rig.book
        .send(Command::SyncFailed {
            detail: "input/output error".to_owned(),
        })
        .await
        .unwrap();
    let view = rig.settled().await;
    assert!(
        view.conditions.get(ConditionType::JournalHealthy).status,
        "one rewrite mends it"
    );
    rig.stop().await;
    let journal = fs::read_to_string(dir.path().join("journal")).unwrap();
    assert!(journal.contains("\"a\"") && !journal.contains("\"gone\""), "{journal}");
}

#[tokio::test]
async fn a_lease_outlives_its_daemon_by_the_grace_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    let Acquired::Granted(_lease) = rig
        .acquire("lease-1", GpuShape::whole(8).unwrap(), false)
        .await
        .unwrap()
    else {
        panic!("there is room")
    };
    rig.crash().await;

    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    clock.advance(leases::LEASE_GRACE.saturating_sub(Duration::from_millis(1)));
    let refused = rig.reserve("a", share(1)).await.unwrap_err();
    assert_eq!(refused.reason(), "InsufficientMilli");
    // Whoever waits is served when the grace is over.
    let Acquired::Waiting { granted, .. } = rig.acquire("lease-2", share(500), true).await.unwrap() else {
        panic!("there is no room")
    };
    clock.advance(Duration::from_millis(1));
    rig.settled().await;
    assert_eq!(
        granted.await.unwrap().claim.holder,
        Holder::Lease("lease-2".parse().unwrap())
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_that_nobody_took_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), &ManualClock::at_unix_ms(NOW)).await;
    rig.kubelet(Vec::new()).await;
    let (reply, answer) = oneshot::channel();
    drop(answer);
    let event = Event::Acquire {
        lease: "lease-1".parse().unwrap(),
        shape: Shape::gpu(GpuShape::whole(1).unwrap()),
        client: String::new(),
    };
    rig.book
        .send(Command::Acquire {
            event,
            wait: false,
            reply,
        })
        .await
        .unwrap();
    rig.settled().await;
    assert!(rig.settled().await.book.claims.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_still_done() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at_unix_ms(NOW);
    let rig = Rig::start(dir.path(), &clock).await;
    rig.kubelet(Vec::new()).await;
    let book = rig.book.clone();
    let (first, second) = tokio::join!(rig.reserve("a", share(100)), async {
        rig.stop.cancel();
        rig.reserve("b", share(100)).await
    });
    first.unwrap();
    // Queued before the end, or refused because of it; never left without an answer.
    assert!(second.is_ok() || matches!(second, Err(BookError::Closed)));
    rig.actor.await.unwrap();
    assert!(matches!(book.request(Event::Tick).await, Err(BookError::Closed)));
    assert!(clock.monotonic() < Duration::from_secs(1));
}
