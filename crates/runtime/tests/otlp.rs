//! Traces to a collector that is there, and to one that is not.
#![expect(clippy::unwrap_used, reason = "test code, also outside of the tests' own functions")]

use std::time::Duration;

use berth_testkit::{Collector, Process, Program};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(20);

async fn end(mut process: Process) -> String {
    process.terminate().unwrap();
    let status = process.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", process.stderr());
    process.stderr()
}

fn fixture(endpoint: &str) -> Program {
    Program::new("runtime-fixture", "berth-runtime").raw_args(&["--otlp-endpoint", endpoint, "--requests", "3"])
}

#[tokio::test]
async fn spans_reach_the_collector_before_the_process_ends() {
    let (collector, endpoint) = Collector::start().await;
    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    assert!(!log.contains("trace"), "nothing to complain about: {log}");
    for text in [
        "runtime-fixture",
        "service.version",
        "/request/0",
        "/request/2",
        "served",
    ] {
        assert!(collector.holds(&[text.as_bytes()]), "{text} was not exported");
    }
    assert!(
        !collector.holds(&[b"accept-tcp"]),
        "spans that wrap whole tasks are no traces"
    );
}

#[tokio::test]
async fn a_collector_that_is_not_there_neither_blocks_nor_floods_the_log() {
    // Bound and closed: nobody answers there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    let complaints = log.lines().filter(|line| line.contains("WARN")).count();
    assert!(
        log.contains("the trace collector is out of reach") && complaints <= 2,
        "{log}"
    );
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    assert!(log.contains("some traces could not be sent before the end"), "{log}");
    drop(listener);
}
