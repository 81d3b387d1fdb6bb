//! Restarts, crashes and damage: nothing that was granted is lost, nothing is granted twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::net::UnixListener,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{Allocation, AllocationState, ReleaseRequest, allocation::Holder, release_request};
use berth_runtime::dial::Target;
use berth_testkit::{FakeKubelet, eventually, spawn};

use crate::support::{Daemon, SOON, allocations, client, condition, devices, reserve, share, simulated, whole};

fn uid(allocation: &Allocation) -> String {
    match &allocation.holder {
        Some(Holder::Pod(pod)) => pod.uid.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_granted_is_there_after_every_kind_of_end() {
    let mut daemon = Daemon::start(simulated()).await;
    daemon.reserve("a", whole(3)).await.unwrap();
    daemon.reserve("b", share(500)).await.unwrap();
    daemon.reserve("gone", whole(1)).await.unwrap();
    daemon.release("gone").await.unwrap();
    let before = daemon.allocations().await;
    let node = daemon.node().await;

    let program = simulated().in_dir_of(&daemon.process);
    daemon.end().await;
    let mut daemon = Daemon::start(program).await;
    assert_eq!(daemon.allocations().await, before, "after SIGTERM");
    let after = daemon.node().await;
    assert!(after.generation > node.generation, "generations grow across restarts");
    assert_ne!(after.instance_id, node.instance_id);

    let program = simulated().in_dir_of(&daemon.process);
    daemon.process.kill();
    let mut daemon = Daemon::start(program).await;
    assert_eq!(daemon.allocations().await, before, "after SIGKILL");
    let again = reserve(&mut daemon.client, "a", whole(3)).await.unwrap();
    assert!(again.existing, "the pod asks again and gets what it has");
}

/// What one worker was told: the pods that it holds, with their devices, and the one call that got no answer.
#[derive(Debug, Default)]
struct Told {
    held: BTreeMap<String, Vec<String>>,
    unanswered: BTreeSet<String>,
}

/// Reserves and releases until the daemon is gone.
async fn work(socket: std::path::PathBuf, name: String) -> Told {
    let mut client = client(&Target::Unix(socket));
    let mut told = Told::default();
    for number in 0.. {
        let uid = format!("{name}-{number}");
        match reserve(&mut client, &uid, share(20)).await {
            Ok(granted) => drop(told.held.insert(uid.clone(), devices(&granted.allocation.unwrap()))),
            Err(status) if status.code() == tonic::Code::ResourceExhausted => {}
            Err(_) => {
                told.unanswered.insert(uid);
                return told;
            }
        }
        // Every third stays: the book grows while it is churned.
        if number % 3 != 0 && told.held.contains_key(&uid) {
            let holder = Some(release_request::Holder::PodUid(uid.clone()));
            if client.release(ReleaseRequest { holder }).await.is_err() {
                told.unanswered.insert(uid);
                return told;
            }
            told.held.remove(&uid);
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_no_grant_and_makes_none_twice() {
    let mut expected = Told::default();
    let mut daemon = Daemon::start(simulated()).await;
    for round in 0..12_u64 {
        let socket = daemon.process.socket();
        let workers: Vec<_> = (0..4)
            .map(|w| spawn(work(socket.clone(), format!("r{round}-w{w}"))))
            .collect();
        // Each round ends somewhere else in the work.
        tokio::time::sleep(Duration::from_millis(15 + 13 * round)).await;
        daemon.process.kill();
        for worker in workers {
            let told = worker.await.unwrap();
            expected.held.extend(told.held);
            expected.unanswered.extend(told.unanswered);
        }
        daemon = Daemon::start(simulated().in_dir_of(&daemon.process)).await;

        let book = daemon.allocations().await;
        let found: BTreeMap<_, _> = book
            .iter()
            .map(|allocation| (uid(allocation), devices(allocation)))
            .collect();
        assert_eq!(found.len(), book.len(), "a pod holds one reservation");
        for (uid, devices) in &expected.held {
            if !expected.unanswered.contains(uid) {
                assert_eq!(
                    found.get(uid),
                    Some(devices),
                    "{uid} was granted and is lost, or moved, after round {round}"
                );
            }
        }
        for uid in found.keys() {
            let known = expected.held.contains_key(uid) || expected.unanswered.contains(uid);
            assert!(
                known,
                "{uid} was released, or never asked for, and is held after round {round}"
            );
        }
        let mut held: BTreeMap<_, u32> = BTreeMap::new();
        for grant in book.iter().flat_map(|allocation| &allocation.grants) {
            *held.entry(&grant.device_uuid).or_default() += grant.milli;
        }
        assert!(held.values().all(|milli| *milli <= 1000), "{held:?}");
        // From here on what is in the book is what was told.
        expected = Told {
            held: found,
            unanswered: BTreeSet::new(),
        };
        if expected.held.len() > 200 {
            for uid in std::mem::take(&mut expected.held).into_keys() {
                assert!(daemon.release(&uid).await.unwrap());
            }
        }
    }
    assert!(
        !daemon.process.stderr().contains("damaged"),
        "a crash is no damage:\n{}",
        daemon.process.stderr()
    );
}

#[tokio::test]
async fn a_damaged_journal_is_put_aside_told_and_rebuilt_from_the_kubelet() {
    let program = || simulated().arg("--kubelet-socket", "{dir}/kubelet.sock");
    let starting = program();
    let kubelet = FakeKubelet::start(starting.dir().join("kubelet.sock")).unwrap();
    let mut daemon = Daemon::start(starting).await;
    let kept = daemon.reserve("kept", whole(1)).await.unwrap();
    let running = daemon.reserve("running", whole(2)).await.unwrap();
    let uuids: Vec<_> = devices(&running);
    let uuids: Vec<_> = uuids.iter().map(String::as_str).collect();
    kubelet.assign("sr-test", "running", "main", "nvidia.com/gpu", &uuids);

    let next = program().in_dir_of(&daemon.process);
    daemon.process.kill();
    let state = daemon.process.dir().join("state");
    let journal = fs::read_to_string(state.join("journal")).unwrap();
    // Flip one letter in every line that names the running pod.
    let damaged: Vec<_> = journal
        .lines()
        .map(|line| line.replace("\"name\":\"running\"", "\"name\":\"runnink\""))
        .collect();
    fs::write(state.join("journal"), damaged.join("\n") + "\n").unwrap();

    let mut daemon = Daemon::start(next).await;
    let condition = condition(&daemon.node().await, "JournalHealthy");
    assert_eq!((condition.status, condition.reason.as_str()), (false, "JournalCorrupt"));
    assert!(condition.message.contains("journal.corrupt-"), "{}", condition.message);
    let aside = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("journal.corrupt-")).count(), 1);

    let book = daemon.allocations().await;
    let of_kept = book
        .iter()
        .find(|allocation| devices(allocation) == devices(&kept))
        .unwrap();
    assert_eq!(
        (uid(of_kept).as_str(), of_kept.state()),
        ("kept", AllocationState::Reserved)
    );
    let of_running = book
        .iter()
        .find(|allocation| allocation.state() == AllocationState::Foreign)
        .unwrap();
    let held: BTreeSet<_> = devices(of_running).into_iter().collect();
    assert_eq!(
        held,
        devices(&running).into_iter().collect(),
        "the kubelet tells what the journal lost"
    );
    daemon.reserve("rest", whole(5)).await.unwrap();
    assert_eq!(
        daemon.reserve("more", whole(1)).await.unwrap_err().code(),
        tonic::Code::ResourceExhausted
    );

    let next = program().in_dir_of(&daemon.process);
    daemon.end().await;
    let mut daemon = Daemon::start(next).await;
    daemon.until_condition("JournalHealthy", true).await;
    assert_eq!(daemon.allocations().await.len(), 3);
}

#[tokio::test]
async fn two_daemons_never_share_a_state_directory() {
    let daemon = Daemon::start(simulated()).await;
    let second = simulated()
        .in_dir_of(&daemon.process)
        .arg("--socket", "{dir}/other.sock");
    let ended = second.run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("another berthd uses the state directory"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("--state-dir"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_living_socket_is_not_taken_and_a_dead_one_is() {
    let daemon = Daemon::start(simulated()).await;
    let second = simulated().arg("--socket", daemon.process.socket().to_str().unwrap());
    let ended = second.run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("another process answers on it"),
        "{}",
        ended.stderr
    );

    let program = simulated();
    let path = program.dir().join("berthd.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind, as by kill -9");
    let mut daemon = Daemon::start(program).await;
    let listed = eventually(SOON, async || {
        allocations(&mut daemon.client).await.context("no answer")
    });
    ensure_empty(&listed.await.unwrap()).unwrap();
}

fn ensure_empty(book: &[Allocation]) -> anyhow::Result<()> {
    ensure!(book.is_empty(), "{book:?}");
    Ok(())
}
