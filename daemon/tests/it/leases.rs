//! AcquireLease: the lease lives as long as the stream.

use std::time::Duration;

use anyhow::ensure;
use berth_proto::node::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, AllocationState, ReleaseRequest, Shape, acquire_lease_response::Event,
    allocation::Holder, release_request,
};
use berth_runtime::dial::Target;
use berth_testkit::eventually;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};

use crate::support::{Client, Daemon, SOON, allocations, client, devices, reason, simulated, whole};

async fn acquire(client: &mut Client, shape: Shape, wait: Duration) -> Result<Streaming<AcquireLeaseResponse>, Status> {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap();
    let request = AcquireLeaseRequest {
        shape: Some(shape),
        client: "alice: python train.py".to_owned(),
        wait_ms,
    };
    Ok(client.acquire_lease(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<AcquireLeaseResponse>) -> AcquireLeaseResponse {
    tokio::time::timeout(SOON, stream.next())
        .await
        .expect("in time")
        .expect("a message")
        .expect("no error")
}

async fn until_held(client: &mut Client, count: usize) {
    let held = eventually(SOON, async || {
        let held = allocations(client).await?;
        ensure!(held.len() == count, "{held:?}");
        Ok(())
    });
    held.await.unwrap();
}

#[tokio::test]
async fn a_lease_lives_as_long_as_its_stream() {
    let mut daemon = Daemon::start(simulated()).await;
    let mut stream = acquire(&mut daemon.client, whole(2), Duration::ZERO).await.unwrap();
    let granted = next(&mut stream).await;
    assert_eq!(granted.event(), Event::Granted);
    let allocation = granted.allocation.unwrap();
    assert_eq!(allocation.state(), AllocationState::Leased);
    assert_eq!(allocation.grants.len(), 2);
    assert!(
        allocation.client.ends_with(", alice: python train.py"),
        "{}",
        allocation.client
    );
    assert_eq!(daemon.allocations().await, [allocation]);
    drop(stream);
    until_held(&mut daemon.client, 0).await;
}

#[tokio::test]
async fn a_client_that_dies_gives_its_lease_back() {
    let mut daemon = Daemon::start(simulated()).await;
    // A connection of its own, which breaks as it does when its process is killed.
    let mut mortal = client(&Target::Unix(daemon.process.socket()));
    let mut stream = acquire(&mut mortal, whole(8), Duration::ZERO).await.unwrap();
    assert_eq!(next(&mut stream).await.event(), Event::Granted);
    let refused = acquire(&mut daemon.client, whole(1), Duration::ZERO).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "DeviceHeld")
    );
    drop((mortal, stream));
    until_held(&mut daemon.client, 0).await;
}

#[tokio::test]
async fn who_waits_is_told_so_and_served_in_turn() {
    let mut daemon = Daemon::start(simulated()).await;
    let mut holder = acquire(&mut daemon.client, whole(8), Duration::ZERO).await.unwrap();
    assert_eq!(next(&mut holder).await.event(), Event::Granted);

    let mut first = acquire(&mut daemon.client, whole(8), SOON).await.unwrap();
    let waiting = next(&mut first).await;
    assert_eq!(
        (waiting.event(), waiting.reason.as_str()),
        (Event::Waiting, "DeviceHeld")
    );
    let mut second = acquire(&mut daemon.client, whole(8), SOON).await.unwrap();
    assert_eq!(next(&mut second).await.event(), Event::Waiting);

    drop(holder);
    assert_eq!(next(&mut first).await.event(), Event::Granted);
    drop(first);
    assert_eq!(next(&mut second).await.event(), Event::Granted);
    until_held(&mut daemon.client, 1).await;
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_at_the_end_of_its_patience() {
    let mut daemon = Daemon::start(simulated()).await;
    daemon.reserve("all", whole(8)).await.unwrap();
    let mut stream = acquire(&mut daemon.client, whole(1), Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await.event(), Event::Waiting);
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "DeviceHeld")
    );
    daemon.release("all").await.unwrap();
    until_held(&mut daemon.client, 0).await;
}

#[tokio::test]
async fn a_lease_that_somebody_releases_is_revoked_and_its_stream_ends() {
    let mut daemon = Daemon::start(simulated()).await;
    let mut stream = acquire(&mut daemon.client, whole(1), Duration::ZERO).await.unwrap();
    let granted = next(&mut stream).await.allocation.unwrap();
    let Some(Holder::LeaseId(id)) = granted.holder else {
        panic!("{granted:?}")
    };
    let holder = Some(release_request::Holder::LeaseId(id));
    assert!(
        daemon
            .client
            .release(ReleaseRequest { holder })
            .await
            .unwrap()
            .into_inner()
            .released
    );
    let last = next(&mut stream).await;
    assert_eq!((last.event(), last.reason.as_str()), (Event::Revoked, "Released"));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_holder_is_told_when_its_gpu_falls_ill() {
    let mut daemon = Daemon::start(simulated()).await;
    let mut stream = acquire(&mut daemon.client, whole(8), Duration::ZERO).await.unwrap();
    let granted = next(&mut stream).await.allocation.unwrap();
    daemon.order(r#"{"xid":{"gpu":2,"code":79}}"#);
    let ill = next(&mut stream).await;
    assert_eq!((ill.event(), ill.reason.as_str()), (Event::Changed, "DevicesUnwell"));
    assert!(ill.message.contains("XID 79"), "{}", ill.message);
    assert_eq!(
        devices(&ill.allocation.unwrap()),
        devices(&granted),
        "it keeps what it holds"
    );
}

#[tokio::test]
async fn a_restart_ends_the_stream_and_keeps_the_gpus_from_others() {
    let mut daemon = Daemon::start(simulated()).await;
    let mut stream = acquire(&mut daemon.client, whole(8), Duration::ZERO).await.unwrap();
    assert_eq!(next(&mut stream).await.event(), Event::Granted);
    let program = simulated().in_dir_of(&daemon.process);
    daemon.end().await;
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "Draining")
    );

    let mut daemon = Daemon::start(program).await;
    assert_eq!(daemon.allocations().await.len(), 1);
    assert_eq!(reason(&daemon.reserve("a", whole(1)).await.unwrap_err()), "DeviceHeld");
}
