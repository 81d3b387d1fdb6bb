//! The kubelet confirms, decides otherwise, is down, is slow, answers nonsense.

use std::time::Duration;

use anyhow::ensure;
use berth_proto::node::v1::{Allocation, AllocationState, allocation::Holder};
use berth_testkit::{FakeKubelet, Program, eventually, http, kubelet::Mood};
use tonic::Code;

use crate::support::{Daemon, SOON, allocations, condition, devices, reason, share, simulated, whole};

fn with_kubelet() -> Program {
    simulated().arg("--kubelet-socket", "{dir}/kubelet.sock")
}

async fn daemon_and_kubelet() -> (Daemon, FakeKubelet) {
    let program = with_kubelet();
    let kubelet = FakeKubelet::start(program.dir().join("kubelet.sock")).unwrap();
    (Daemon::start(program).await, kubelet)
}

/// Waits until the book satisfies `is_so`.
async fn until(daemon: &mut Daemon, is_so: impl Fn(&[Allocation]) -> bool) -> Vec<Allocation> {
    let client = &mut daemon.client;
    let found = eventually(SOON, async || {
        let book = allocations(client).await?;
        ensure!(is_so(&book), "{book:?}");
        Ok(book)
    });
    found.await.unwrap()
}

fn of<'a>(book: &'a [Allocation], name: &str) -> &'a Allocation {
    let is_pod = |allocation: &&Allocation| matches!(&allocation.holder, Some(Holder::Pod(pod)) if pod.name == name);
    book.iter()
        .find(is_pod)
        .unwrap_or_else(|| panic!("no {name} in {book:?}"))
}

#[tokio::test]
async fn nothing_is_granted_before_the_kubelet_has_been_heard() {
    let program = with_kubelet();
    let socket = program.dir().join("kubelet.sock");
    let mut daemon = Daemon::start_closed(program).await;
    daemon.until_condition("DriverReady", true).await;
    let unreachable = daemon.until_condition("KubeletReachable", false).await;
    assert!(
        ["Starting", "KubeletUnreachable"].contains(&unreachable.reason.as_str()),
        "{unreachable:?}"
    );
    let refused = daemon.reserve("a", whole(1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "NotReconciled")
    );
    let ready = http::get(&format!("{}/readyz", daemon.process.admin())).await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("book: "), "{}", ready.body);

    let kubelet = FakeKubelet::start(&socket).unwrap();
    let uuid = daemon.node().await.devices[0].uuid.clone();
    kubelet.assign("sr-1", "before-us", "main", "nvidia.com/gpu", &[&uuid]);
    daemon.until_condition("LedgerReconciled", true).await;
    daemon.until_condition("KubeletReachable", true).await;
    let book = until(&mut daemon, |book| !book.is_empty()).await;
    assert_eq!(of(&book, "before-us").state(), AllocationState::Foreign);
    daemon.reserve("a", whole(7)).await.unwrap();
}

#[tokio::test]
async fn the_kubelet_confirms_a_reservation_and_its_choice_of_devices_wins() {
    let (mut daemon, kubelet) = daemon_and_kubelet().await;
    let planned = daemon.reserve("a", whole(1)).await.unwrap();
    let other = daemon.reserve("b", whole(1)).await.unwrap();
    // It gives to `a` what was planned for `b`.
    let chosen = devices(&other);
    kubelet.assign("sr-test", "a", "main", "nvidia.com/gpu", &[&chosen[0]]);
    let book = until(&mut daemon, |book| of(book, "a").state() == AllocationState::Allocated).await;
    assert_eq!(devices(of(&book, "a")), chosen);
    assert_ne!(devices(of(&book, "b")), chosen, "b is planned anew at once");
    assert_eq!(of(&book, "b").state(), AllocationState::Reserved);
    assert_ne!(devices(&planned), chosen);
    assert!(daemon.node().await.drifts.is_empty(), "that is no drift");
}

#[tokio::test]
async fn a_share_is_confirmed_by_its_pod_although_the_kubelet_gave_it_no_device() {
    let program = with_kubelet().arg("--default-ttl", "6s");
    let kubelet = FakeKubelet::start(program.dir().join("kubelet.sock")).unwrap();
    let mut daemon = Daemon::start(program).await;
    let planned = daemon.reserve("a", share(300)).await.unwrap();
    daemon.reserve("whole", whole(1)).await.unwrap();
    daemon.reserve("never-came", share(300)).await.unwrap();
    for pod in ["a", "whole", "nobody-reserved"] {
        kubelet.run_pod("sr-test", pod, "main");
    }
    let book = until(&mut daemon, |book| of(book, "a").state() == AllocationState::Allocated).await;
    assert_eq!(devices(of(&book, "a")), devices(&planned), "it keeps its plan");
    // The others had the same deadline: when they lapsed, it would have too. Not before the kubelet was heard for its grace.
    let client = &mut daemon.client;
    let lapsed = eventually(Duration::from_mins(1), async || {
        let book = allocations(client).await?;
        ensure!(book.len() == 1, "{book:?}");
        Ok(book)
    });
    let book = lapsed.await.unwrap();
    assert_eq!(of(&book, "a").state(), AllocationState::Allocated);
}

#[tokio::test]
async fn a_kubelet_that_goes_down_costs_nothing_and_is_told() {
    let (mut daemon, mut kubelet) = daemon_and_kubelet().await;
    let uuid = daemon.node().await.devices[0].uuid.clone();
    kubelet.assign("sr-1", "runs", "main", "nvidia.com/gpu", &[&uuid]);
    daemon.reserve("a", whole(1)).await.unwrap();
    until(&mut daemon, |book| book.len() == 2).await;

    kubelet.go_down().await;
    let down = daemon.until_condition("KubeletReachable", false).await;
    assert_eq!(down.reason, "KubeletUnreachable");
    assert!(
        down.message.contains("kubelet.sock") && down.message.contains("is kept"),
        "{}",
        down.message
    );
    daemon.reserve("b", whole(6)).await.unwrap();
    assert_eq!(
        daemon.allocations().await.len(),
        3,
        "the book keeps what it has, and still grants"
    );
    kubelet.come_up().unwrap();
    daemon.until_condition("KubeletReachable", true).await;
    assert_eq!(daemon.allocations().await.len(), 3);
}

#[tokio::test]
async fn a_kubelet_that_is_slow_or_refuses_is_told_by_name() {
    let (mut daemon, kubelet) = daemon_and_kubelet().await;
    // So that it is asked often.
    daemon.reserve("a", whole(1)).await.unwrap();
    for (mood, expected) in [
        (Mood::RateLimited, "KubeletRateLimited"),
        (Mood::Failing, "KubeletFailed"),
        (Mood::Slow(Duration::from_mins(1)), "KubeletTimeout"),
    ] {
        kubelet.set_mood(mood);
        let client = &mut daemon.client;
        let told = eventually(SOON, async || {
            let condition = condition(&crate::support::node(client).await?, "KubeletReachable");
            ensure!(!condition.status && condition.reason == expected, "{condition:?}");
            Ok(())
        });
        told.await.unwrap();
        daemon
            .reserve(&expected.to_lowercase(), whole(1))
            .await
            .expect("an open book grants while the kubelet is away");
    }
    kubelet.set_mood(Mood::Well);
    daemon.until_condition("KubeletReachable", true).await;
}

#[tokio::test]
async fn what_the_kubelet_says_of_unknown_things_does_no_harm() {
    let (mut daemon, kubelet) = daemon_and_kubelet().await;
    let uuid = daemon.node().await.devices[1].uuid.clone();
    kubelet.assign(
        "sr-1",
        "odd",
        "main",
        "nvidia.com/gpu",
        &["tegra", "GPU-of-another-node", &uuid],
    );
    kubelet.assign("sr-1", "nic", "main", "vendor.example/nic", &["eth1"]);
    let book = until(&mut daemon, |book| !book.is_empty()).await;
    assert!(devices(of(&book, "odd")).contains(&uuid));
    assert_eq!(book.len(), 1);
    daemon.reserve("a", whole(7)).await.unwrap();
}

#[tokio::test]
async fn the_kubelet_is_asked_often_only_while_something_waits_for_it() {
    let (mut daemon, kubelet) = daemon_and_kubelet().await;
    let before = kubelet.list_calls();
    let planned = daemon.reserve("a", whole(1)).await.unwrap();
    let uuids = devices(&planned);
    kubelet.assign("sr-test", "a", "main", "nvidia.com/gpu", &[&uuids[0]]);
    let confirmed = tokio::time::timeout(
        Duration::from_secs(5),
        until(&mut daemon, |book| of(book, "a").state() == AllocationState::Allocated),
    );
    confirmed.await.expect("within the short cadence");
    assert!(kubelet.list_calls() - before <= 3);
}

#[tokio::test]
async fn the_devices_of_a_pod_that_is_gone_are_free_as_soon_as_the_kubelet_says_so_too() {
    let (mut daemon, kubelet) = daemon_and_kubelet().await;
    let uuids = devices(&daemon.reserve("a", whole(8)).await.unwrap());
    let uuids: Vec<_> = uuids.iter().map(String::as_str).collect();
    kubelet.assign("sr-test", "a", "main", "nvidia.com/gpu", &uuids);
    until(&mut daemon, |book| of(book, "a").state() == AllocationState::Allocated).await;
    assert!(daemon.release("a").await.unwrap());
    // However often it is asked: as long as it names the pod, the pod is there.
    let before = kubelet.list_calls();
    let asked = eventually(SOON, async || {
        ensure!(kubelet.list_calls() >= before + 3, "not yet");
        Ok(())
    });
    asked.await.unwrap();
    let book = daemon.allocations().await;
    assert_eq!(of(&book, "a").state(), AllocationState::Foreign);
    daemon.reserve("b", whole(8)).await.unwrap_err();
    kubelet.remove_pod("sr-test", "a");
    let freed = tokio::time::timeout(Duration::from_secs(8), until(&mut daemon, <[_]>::is_empty));
    freed
        .await
        .expect("neither the long cadence nor the grace is waited for");
    daemon.reserve("b", whole(8)).await.unwrap();
}
