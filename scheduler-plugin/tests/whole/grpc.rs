//! `berth.scheduler.v1` as a client sees it, on real processes.

use anyhow::ensure;
use berth_proto::{
    node::v1::{self as node, ListAllocationsRequest, node_service_client::NodeServiceClient},
    scheduler::v1::{
        ExplainRequest, GetClusterRequest, PlaceRequest, PodName, PodShape, SimulateRequest, SimulatedShape,
        WatchDecisionsRequest, explain_request::What, outcome::State, placement_service_client::PlacementServiceClient,
        watch_decisions_response::Event,
    },
};
use berth_testkit::{Process, Program, eventually};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    process::{berthd, socket},
    scheduler::SOON,
};

fn whole(count: u32) -> PodShape {
    let gpu = node::Shape {
        gpu: Some(node::shape::Gpu::Whole(node::WholeGpus { count })),
        models: vec!["H100".to_owned()],
    };
    PodShape {
        gpu: Some(gpu),
        ..PodShape::default()
    }
}

fn pod(uid: &str) -> node::PodRef {
    node::PodRef {
        namespace: "nvcf-backend".to_owned(),
        name: format!("pod-{uid}"),
        uid: uid.to_owned(),
    }
}

fn reserving(uid: &str, count: u32) -> PlaceRequest {
    PlaceRequest {
        pod: Some(pod(uid)),
        shape: Some(whole(count)),
        reserve: true,
        ..PlaceRequest::default()
    }
}

async fn client(scheduler: &Process) -> PlacementServiceClient<Channel> {
    let address = format!("http://{}", scheduler.address("grpc"));
    PlacementServiceClient::connect(address).await.unwrap()
}

async fn simulated(more: &[&str]) -> (Process, PlacementServiceClient<Channel>) {
    let program = Program::scheduler().arg("--cluster", "simulated:2xdgx-h100,1xl40s");
    let scheduler = program.raw_args(more).start().await.unwrap();
    let client = client(&scheduler).await;
    (scheduler, client)
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

#[tokio::test]
async fn what_would_be_is_told_and_changes_nothing() {
    let (_scheduler, mut client) = simulated(&[]).await;
    let cluster = client.get_cluster(GetClusterRequest {}).await.unwrap().into_inner();
    let gpus: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| (node.gpus, node.gpus_free, node.usable))
        .collect();
    assert_eq!(
        gpus,
        [
            (8, 8, true),
            (8, 8, true),
            (cluster.nodes[2].gpus, cluster.nodes[2].gpus, true)
        ]
    );

    let seventeen = SimulateRequest {
        shapes: vec![SimulatedShape {
            shape: Some(whole(8)),
            count: 3,
        }],
    };
    let answer = client.simulate(seventeen).await.unwrap().into_inner();
    assert_eq!((answer.placed, answer.pods.len()), (2, 3), "two nodes of eight GPUs");
    assert_eq!(answer.free_milli_before - answer.free_milli_after, 16_000);
    assert!(answer.pods[2].node.is_empty());

    let explained = ExplainRequest {
        what: Some(What::Shape(whole(8))),
        ..ExplainRequest::default()
    };
    let answer = client.explain(explained).await.unwrap().into_inner();
    assert_eq!((answer.fitting, answer.candidates), (2, 3));
    assert_eq!((answer.nodes[0].rank, answer.nodes[0].grants.len()), (1, 8));
    let last = answer.nodes.last().unwrap();
    assert_eq!((last.rank, last.reason.as_str()), (0, "ModelMismatch"));
    assert_eq!(answer.refused["ModelMismatch"], 1);
    let sum: f64 = answer.nodes[0].terms.iter().map(|term| term.value).sum();
    assert!((sum - answer.nodes[0].score).abs() < 1e-3, "the terms add up to {sum}");

    let dry = PlaceRequest {
        shape: Some(whole(8)),
        ..PlaceRequest::default()
    };
    let answer = client.place(dry).await.unwrap().into_inner();
    assert_eq!((answer.fitting, answer.decision_id.as_str()), (2, ""));
    assert_eq!(
        client.get_cluster(GetClusterRequest {}).await.unwrap().into_inner(),
        cluster
    );
}

#[tokio::test]
async fn who_asks_for_nonsense_or_for_too_much_hears_why() {
    let (_scheduler, mut client) = simulated(&["--allow", "loopback"]).await;
    let no_shape = client.place(PlaceRequest::default()).await.unwrap_err();
    assert_eq!(
        (no_shape.code(), reason(&no_shape).as_str()),
        (Code::InvalidArgument, "FieldMissing")
    );
    let zero = PlaceRequest {
        shape: Some(whole(0)),
        ..PlaceRequest::default()
    };
    let zero = client.place(zero).await.unwrap_err();
    assert_eq!(
        (zero.code(), reason(&zero).as_str()),
        (Code::InvalidArgument, "InvalidGpuCount")
    );
    let nobody = PlaceRequest {
        pod: None,
        ..reserving("x", 1)
    };
    assert_eq!(reason(&client.place(nobody).await.unwrap_err()), "FieldMissing");
    let bad_name = PlaceRequest {
        nodes: vec!["no name".to_owned()],
        ..reserving("x", 1)
    };
    assert_eq!(reason(&client.place(bad_name).await.unwrap_err()), "FieldInvalid");
    let many = SimulateRequest {
        shapes: vec![SimulatedShape {
            shape: Some(whole(1)),
            count: u32::MAX,
        }],
    };
    assert_eq!(reason(&client.simulate(many).await.unwrap_err()), "FieldTooLarge");
    let unseen = ExplainRequest {
        what: Some(What::Pod(PodName {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        })),
        ..ExplainRequest::default()
    };
    let unseen = client.explain(unseen).await.unwrap_err();
    assert_eq!(
        (unseen.code(), reason(&unseen).as_str()),
        (Code::NotFound, "UnknownPod")
    );
    let too_big = client.place(reserving("big", 9)).await.unwrap_err();
    assert_eq!(too_big.code(), Code::ResourceExhausted, "{too_big}");
}

#[tokio::test]
async fn reserving_is_for_allowed_clients_and_holds_on_the_nodes_daemon() {
    let daemon = berthd("h100", "dgx-h100").start().await.unwrap();
    let target = socket(&daemon);
    let start = async |more: &[&str]| {
        Program::scheduler()
            .arg("--nodes", &target)
            .raw_args(more)
            .start()
            .await
            .unwrap()
    };
    let reader = start(&[]).await;
    let denied = client(&reader).await.place(reserving("a", 1)).await.unwrap_err();
    assert_eq!(
        (denied.code(), reason(&denied).as_str()),
        (Code::PermissionDenied, "IdentityNotAllowed")
    );

    let scheduler = start(&["--allow", "loopback"]).await;
    let mut client = client(&scheduler).await;
    let granted = eventually(SOON, async || {
        let answer = client.place(reserving("a", 3)).await?.into_inner();
        ensure!(answer.reservation.is_some(), "the daemon has not told its node yet");
        Ok(answer)
    });
    let first = granted.await.unwrap();
    let reservation = first.reservation.unwrap();
    assert_eq!(
        (
            reservation.node.as_str(),
            reservation.grants.len(),
            reservation.verified
        ),
        ("h100", 3, true)
    );
    assert!(
        reservation.deadline_unix_ms > 0,
        "it lapses unless a kubelet confirms it"
    );
    let again = client
        .place(reserving("a", 3))
        .await
        .unwrap()
        .into_inner()
        .reservation
        .unwrap();
    assert!(
        again.existing && again.grants == reservation.grants,
        "the same pod, the same devices"
    );

    let mut book = NodeServiceClient::connect(daemon.grpc()).await.unwrap();
    let book = book
        .list_allocations(ListAllocationsRequest {})
        .await
        .unwrap()
        .into_inner()
        .allocations;
    assert_eq!((book.len(), book[0].grants.len()), (1, 3));
    let refused = client.place(reserving("b", 6)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);

    let explained = ExplainRequest {
        what: Some(What::Pod(PodName {
            namespace: "nvcf-backend".to_owned(),
            name: "pod-a".to_owned(),
        })),
        ..ExplainRequest::default()
    };
    let explained = client.explain(explained).await.unwrap().into_inner();
    let outcome = explained.decision.unwrap().outcome.unwrap();
    assert_eq!((outcome.state(), outcome.node.as_str()), (State::Reserved, "h100"));
}

#[tokio::test]
async fn decisions_are_told_as_they_are_made_and_the_stream_ends_with_the_process() {
    let (mut scheduler, mut client) = simulated(&["--allow", "loopback"]).await;
    client.place(reserving("before", 1)).await.unwrap();
    let watch = client
        .watch_decisions(WatchDecisionsRequest { history: true })
        .await
        .unwrap();
    let mut watch = watch.into_inner();
    let decision = |event: Option<Event>| match event {
        Some(Event::Decision(decision)) => (decision.pod.unwrap().uid, decision.outcome.unwrap().state()),
        other => panic!("{other:?}"),
    };
    let told = watch.next().await.unwrap().unwrap();
    assert_eq!(decision(told.event), ("before".to_owned(), State::Reserved));
    client.place(reserving("after", 1)).await.unwrap();
    for state in [State::Proposed, State::Reserved] {
        let told = watch.next().await.unwrap().unwrap();
        assert_eq!(decision(told.event), ("after".to_owned(), state));
    }
    scheduler.terminate().unwrap();
    let last = watch.next().await.unwrap().unwrap_err();
    assert_eq!((last.code(), reason(&last).as_str()), (Code::Unavailable, "Draining"));
    assert!(scheduler.wait(SOON).await.unwrap().success());
}
