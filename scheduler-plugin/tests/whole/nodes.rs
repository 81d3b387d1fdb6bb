//! Daemons that come and go, fall silent, fall ill; and what the scheduler says of them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use berth_testkit::eventually;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    fake_node::FakeNode,
    scheduler::{Pod, SOON, Scheduler, http},
};

async fn get_admin(scheduler: &Scheduler, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(scheduler.addresses.admin.as_deref().unwrap())
        .await
        .unwrap();
    http(&mut stream, &format!("GET {path}"), "").await
}

#[tokio::test]
async fn a_daemon_that_stops_takes_no_pods_and_takes_them_again_when_it_is_back() {
    let (mut a, b) = (FakeNode::start("a", 2).await, FakeNode::start("b", 2).await);
    let scheduler = Scheduler::start(&[a.target(), b.target()], &[]);
    let pod = Pod::new("p1", 1);
    scheduler.until_fits(&pod, &["a", "b"], &["a", "b"]).await;
    a.stop();
    scheduler.until_fits(&pod, &["a", "b"], &["b"]).await;
    let answer = scheduler.post("/filter", &pod.args(&["a", "b"])).await;
    let why = answer["FailedAndUnresolvableNodes"]["a"].as_str().unwrap();
    assert!(why.starts_with("NodeUnreachable: "), "{why}");
    a.restart().await;
    scheduler.until_fits(&pod, &["a", "b"], &["a", "b"]).await;
    assert!(scheduler.stop().await.is_clean());
}

#[tokio::test]
async fn a_daemon_that_falls_silent_without_hanging_up_is_noticed() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start(&[node.target()], &[]);
    let pod = Pod::new("p1", 1);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    node.set_mute(true);
    scheduler.until_fits(&pod, &["a"], &[]).await;
    node.set_mute(false);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
}

#[tokio::test]
async fn a_gpu_that_falls_ill_is_avoided_within_a_second() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start(&[node.target()], &[]);
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    node.set_ill(1);
    let avoided = eventually(Duration::from_secs(1), async || {
        let fits = scheduler.filter(&pod, &["a"]).await;
        ensure!(fits.is_empty(), "{fits:?}");
        Ok(())
    });
    avoided.await.unwrap();
    let one = Pod::new("p2", 1);
    assert_eq!(scheduler.filter(&one, &["a"]).await, ["a"]);
    assert_eq!(scheduler.bind(&one, "a").await, "");
    let view: Value = serde_json::from_str(&get_admin(&scheduler, "/debug/cluster").await.1).unwrap();
    let ill = view["nodes"][0]["ill"][0].as_str().unwrap();
    assert!(ill.starts_with("GPU-a-1: Unhealthy"), "{ill}");
}

#[tokio::test]
async fn it_is_ready_when_every_node_was_seen_or_its_failure_is_known() {
    let node = FakeNode::start("a", 1).await;
    // A port that was free a moment ago: nobody listens there.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let silent = FakeNode::start("silent", 1).await;
    silent.set_mute(true);
    let targets = [node.target(), target, silent.target()];
    let scheduler = Scheduler::start(&targets, &["--unreachable-after", "2s"]);
    let (status, text) = get_admin(&scheduler, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains(&silent.target()), "{text}");
    let ready = eventually(SOON, async || {
        ensure!(scheduler.readiness.is_ready());
        Ok(())
    });
    ready.await.unwrap();
    let view: Value = serde_json::from_str(&get_admin(&scheduler, "/debug/cluster").await.1).unwrap();
    let contacts: Vec<_> = view["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["contact"].clone())
        .collect();
    assert_eq!(contacts, ["Up", "Down", "Down"]);
    assert_eq!(view["nodes"][1]["problem"]["reason"], "DaemonUnavailable");
    assert_eq!(view["nodes"][2]["problem"]["reason"], "DaemonTimeout");
}

#[tokio::test]
async fn two_daemons_with_the_same_name_are_a_problem_that_is_shown() {
    let (first, second) = (FakeNode::start("a", 1).await, FakeNode::start("a", 1).await);
    let scheduler = Scheduler::start(&[first.target(), second.target()], &[]);
    let shown = eventually(SOON, async || {
        let view: Value = serde_json::from_str(&get_admin(&scheduler, "/debug/cluster").await.1)?;
        let problems: Vec<_> = view["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| &node["problem"]["reason"])
            .collect();
        ensure!(problems.contains(&&json!("NodeNameTaken")), "{problems:?}");
        Ok(())
    });
    shown.await.unwrap();
}

#[tokio::test]
async fn decisions_nodes_and_metrics_are_served() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start(&[node.target()], &[]);
    scheduler.until_fits(&Pod::new("p1", 2), &["a", "b"], &["a"]).await;
    assert_eq!(scheduler.bind(&Pod::new("p1", 2), "a").await, "");
    let decisions: Value = serde_json::from_str(&get_admin(&scheduler, "/debug/decisions").await.1).unwrap();
    let last = &decisions[0];
    assert_eq!(
        (&last["pod"]["uid"], &last["policy"]),
        (&json!("p1"), &json!("fragmentation"))
    );
    assert_eq!(last["outcome"]["state"], "Reserved");
    assert_eq!(last["outcome"]["devices"], json!(["GPU-a-0", "GPU-a-1"]));
    assert_eq!(last["refused"], json!({"UnknownNode": 1}));
    let (_, metrics) = get_admin(&scheduler, "/metrics").await;
    for line in [
        r#"berth_decisions_total{policy="fragmentation",outcome="reserved"} 1"#,
        r#"berth_nodes{contact="Up"} 1"#,
        r#"berth_extender_node_refusals_total{reason="UnknownNode"}"#,
        r#"berth_extender_request_duration_seconds_count{verb="bind",outcome="ok"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn every_policy_places_pods() {
    let nodes = [FakeNode::start("a", 8).await, FakeNode::start("b", 8).await];
    let targets: Vec<_> = nodes.iter().map(FakeNode::target).collect();
    for policy in ["fragmentation", "fgd", "binpack", "spread", "random"] {
        let scheduler = Scheduler::start(&targets, &["--policy", policy]);
        let name = |n: u32| format!("{policy}-{n}");
        scheduler
            .until_fits(&Pod::new(&name(0), 1), &["a", "b"], &["a", "b"])
            .await;
        for n in 1..=2 {
            let pod = Pod::new(&name(n), 1);
            scheduler.filter(&pod, &["a", "b"]).await;
            let best = scheduler.best(&pod, &["a", "b"]).await;
            assert_eq!(scheduler.bind(&pod, &best).await, "", "{policy}");
        }
        assert!(scheduler.stop().await.is_clean());
    }
    assert_eq!(nodes.iter().map(|node| node.held().len()).sum::<usize>(), 10);
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_ends_with_the_scheduler() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start(&[node.target()], &[]);
    let pod = Pod::new("p1", 1);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    let mut stream = TcpStream::connect(scheduler.addresses.extender.as_deref().unwrap())
        .await
        .unwrap();
    for _ in 0..3 {
        let (status, body) = http(&mut stream, "POST /filter", &pod.args(&["a"]).to_string()).await;
        assert_eq!((status, body.contains(r#""NodeNames":["a"]"#)), (200, true), "{body}");
    }
    let (status, body) = http(&mut stream, "POST /filter", "{").await;
    assert_eq!((status, body.contains("MalformedBody")), (400, true), "{body}");
    #[expect(clippy::disallowed_methods, reason = "how long a test took")]
    let start = Instant::now();
    let outcome = scheduler.stop().await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "neither the open stream nor the idle connection holds it up"
    );
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}
