//! The book end to end, without gRPC: a journal that cannot be written, leases that outlive their daemon; in `crash` a
//! crash at every byte.

use std::{fs, path::Path, time::Duration};

use berth_gpu::{
    DeviceFacts, DeviceReport, DriverState, HealthReport,
    inventory::{DriverFacts, MigReport},
};
use berth_ledger::LedgerConfig;
use berth_placement::{ComputeMode, DeviceUuid, GpuShape, Health, LeaseId, MemoryBytes, MilliGpu, PodRef, PodUid};
use berth_runtime::{Clock as _, ManualClock, Readiness, SharedClock, metrics::latency_histogram};
use berth_testkit::spawn;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod crash;

use super::*;
use crate::{
    conditions::ConditionType,
    journal::{JournalOptions, SyncMode},
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
