//! Starting and stopping: mistakes are told, a missing driver is a condition, the end is prompt.

use std::time::Duration;

use berth_daemon::{
    app::{self, BUILD},
    args::Args,
    config::Config,
};
use berth_proto::node::v1::WatchNodeRequest;
use berth_runtime::{args::parse_args_from, dial::Target, process::Context, telemetry::LogLevel};
use berth_testkit::{Program, http};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{Daemon, SOON, client, node, reason, simulated, whole};

#[tokio::test]
async fn garbage_flags_end_with_code_2_and_say_what_would_do() {
    for (args, tells) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["--listen", "everywhere"], "--listen"),
        (&["--simulate", "dgx-9000"], "dgx-h100"),
        (&["--node-name", "Not A Name"], "lower-case"),
        (&["--allow", "everybody"], "uid:NUMBER"),
        (&["--default-ttl", "soon"], "30s"),
        (&["--tls-cert", "a.pem"], "--tls-key"),
    ] {
        let ended = Program::new("berthd", "berth-daemon")
            .raw_args(args)
            .run(SOON)
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(tells), "{args:?}: {}", ended.stderr);
    }
    let by_variable = Program::new("berthd", "berth-daemon").env("BERTHD_LISTEN", "everywhere");
    assert_eq!(by_variable.run(SOON).await.unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn an_unusable_state_directory_stops_the_start_and_is_named() {
    let program = simulated().arg("--state-dir", "/proc/no-such-place/state");
    let ended = program.run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("/proc/no-such-place/state"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_missing_driver_is_a_condition_and_never_a_simulation() {
    let program = Program::berthd()
        .arg("--nvml-library", "{dir}/no-such-library.so")
        .arg("--kubelet-socket", "none");
    let mut daemon = Daemon::start_closed(program).await;
    let condition = daemon.until_condition("DriverReady", false).await;
    assert!(
        condition.message.contains("--simulate") || condition.reason == "Starting",
        "{condition:?}"
    );
    let node = daemon.node().await;
    assert!(!node.simulated && node.devices.is_empty());
    let refused = daemon.reserve("a", whole(1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "NotReconciled")
    );
    let live = http::get(&format!("{}/livez", daemon.process.admin())).await.unwrap();
    assert_eq!(live.status, 200);
    daemon.end().await;
}

#[tokio::test]
async fn sigterm_ends_within_seconds_with_streams_open() {
    let mut daemon = Daemon::start(simulated()).await;
    let channel = berth_runtime::dial::channel(&Target::Unix(daemon.process.socket()), None).unwrap();
    let mut watch = daemon
        .client
        .watch_node(WatchNodeRequest::default())
        .await
        .unwrap()
        .into_inner();
    watch.next().await.unwrap().unwrap();
    let mut health = HealthClient::new(channel.clone())
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    health.next().await.unwrap().unwrap();
    // A reflection stream whose client never ends it.
    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let (_open, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut reflection = reflection.server_reflection_info(requests).await.unwrap().into_inner();

    daemon.process.terminate().unwrap();
    let status = daemon
        .process
        .wait(Duration::from_secs(5))
        .await
        .expect("within seconds");
    assert!(status.success(), "{}", daemon.process.stderr());
    let last = loop {
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("the stream must say why it ends"),
        }
    };
    assert_eq!((last.code(), reason(&last).as_str()), (Code::Unavailable, "Draining"));
    while let Some(Ok(_)) = health.next().await {}
    assert!(reflection.next().await.is_none());
    assert!(!daemon.process.socket().exists(), "the socket is removed");
}

#[tokio::test]
async fn one_line_tells_a_person_what_is_here_and_where() {
    let mut daemon = Daemon::start(simulated()).await;
    daemon.until_condition("DriverReady", true).await;
    let process = daemon.end().await;
    let line = process.stderr();
    let line = line.lines().find(|line| line.contains("berthd serves")).unwrap();
    for part in [
        "8 x H100 (",
        process.address("grpc"),
        process.address("admin"),
        "berthd.sock",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[tokio::test]
async fn a_trace_collector_that_is_down_holds_nobody_up() {
    let mut daemon = Daemon::start(simulated().arg("--otlp-endpoint", "http://127.0.0.1:1")).await;
    daemon.reserve("a", whole(1)).await.unwrap();
    daemon.end().await;
}

#[tokio::test]
async fn the_debug_page_shows_the_book() {
    let mut daemon = Daemon::start(simulated()).await;
    daemon.reserve("uid-1", whole(1)).await.unwrap();
    let page = http::get(&format!("{}/debug/ledger", daemon.process.admin()))
        .await
        .unwrap();
    let page: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(page["claims"][0]["pod"]["uid"], "uid-1");
    assert_eq!(page["devices"].as_array().unwrap().len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_inside_another_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let args = [
        "berthd",
        "--node-name",
        "inside",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--simulate",
        "l40s",
        "--kubelet-socket",
        "none",
        "--socket",
        socket.to_str().unwrap(),
        "--state-dir",
        dir.path().to_str().unwrap(),
    ];
    let args: Args = parse_args_from("BERTHD_TEST", args.map(Into::into)).unwrap();
    let context = Context::new(BUILD, LogLevel::layer("info").unwrap().1);
    let shutdown = context.shutdown.clone();
    let bound = app::build(Config::from_args(args).unwrap(), context).unwrap();
    assert!(!bound.addresses().grpc.as_ref().unwrap().ends_with(":0"));
    let running = berth_testkit::spawn(bound.run());
    let found = node(&mut client(&Target::Unix(socket))).await.unwrap();
    assert_eq!(found.name, "inside");
    shutdown.trigger("test");
    let outcome = running.await.unwrap().unwrap();
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(outcome.took < Duration::from_secs(5), "{outcome:?}");
}
