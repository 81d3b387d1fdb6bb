//! Real processes: berth-scheduler and berthd, as they are started in production.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{ListAllocationsRequest, allocation::Holder, node_service_client::NodeServiceClient};
use berth_testkit::{Collector, Process, Program, eventually};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::scheduler::{Pod, SOON, http, http_with};

/// A berthd with simulated GPUs, reached over its unix socket.
pub(crate) fn berthd(name: &str, profile: &str) -> Program {
    Program::berthd()
        .arg("--node-name", name)
        .arg("--simulate", profile)
        .arg("--simulate-control", "{dir}/control")
        .arg("--kubelet-socket", "none")
        .arg("--allow", "loopback")
}

pub(crate) fn socket(daemon: &Process) -> String {
    format!("unix://{}", daemon.dir().join("berthd.sock").display())
}

async fn scheduler(targets: &[String]) -> Process {
    scheduler_with(targets, |program| program).await
}

async fn scheduler_with(targets: &[String], more: impl FnOnce(Program) -> Program) -> Process {
    let scheduler = Program::scheduler()
        .arg("--nodes", targets.join(","))
        .arg("--unreachable-after", "300ms");
    let scheduler = more(scheduler).start().await.unwrap();
    let ready = eventually(SOON, async || {
        let (status, text) = get(scheduler.address("admin"), "/readyz").await?;
        ensure!(status == 200, "{text}");
        Ok(())
    });
    ready.await.unwrap();
    scheduler
}

async fn get(addr: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr).await?;
    Ok(http(&mut stream, &format!("GET {path}"), "").await)
}

async fn post(scheduler: &Process, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(scheduler.address("extender")).await.unwrap();
    let (status, body) = http(&mut stream, &format!("POST {path}"), &body.to_string()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn fitting(scheduler: &Process, pod: &Pod, nodes: &[&str]) -> Vec<String> {
    let answer = post(scheduler, "/filter", &pod.args(nodes)).await;
    serde_json::from_value(answer["NodeNames"].clone()).unwrap()
}

async fn until_fits(scheduler: &Process, pod: &Pod, nodes: &[&str], expected: &[&str], deadline: Duration) {
    let wait = eventually(deadline, async || {
        let fits = fitting(scheduler, pod, nodes).await;
        ensure!(fits == expected, "{fits:?} fit");
        Ok(())
    });
    wait.await.unwrap();
}

/// As kube-scheduler: filter, prioritize, bind to the best. The node, or the error.
async fn place(scheduler: &Process, pod: &Pod, nodes: &[&str]) -> Result<String, String> {
    let fits = fitting(scheduler, pod, nodes).await;
    let fits: Vec<_> = fits.iter().map(String::as_str).collect();
    let scores = post(scheduler, "/prioritize", &pod.args(&fits)).await;
    let best = scores.as_array().unwrap().iter().max_by_key(|it| it["Score"].as_i64());
    let best = best.ok_or("nothing fits")?["Host"].as_str().unwrap().to_owned();
    let answer = post(scheduler, "/bind", &pod.bind_args(&best)).await;
    match answer["Error"].as_str().unwrap() {
        "" => Ok(best),
        error => Err(error.to_owned()),
    }
}

/// Pod UID and number of devices, by the daemon's own book.
async fn book(daemon: &Process) -> anyhow::Result<Vec<(String, usize)>> {
    let mut client = NodeServiceClient::connect(daemon.grpc()).await?;
    let answer = client.list_allocations(ListAllocationsRequest {}).await?.into_inner();
    let entry = |it: berth_proto::node::v1::Allocation| match it.holder {
        Some(Holder::Pod(pod)) => Ok((pod.uid, it.grants.len())),
        holder => anyhow::bail!("held by {holder:?}"),
    };
    answer.allocations.into_iter().map(entry).collect()
}

#[tokio::test]
async fn pods_are_placed_on_real_daemons_which_die_and_return() {
    let mut h100 = berthd("h100", "dgx-h100").start().await.unwrap();
    let l40s = berthd("l40s", "l40s").start().await.unwrap();
    let scheduler = scheduler(&[socket(&h100), l40s.grpc()]).await;
    let nodes = ["h100", "l40s", "unknown"];
    let pod = Pod::new("first", 2).on("H100");
    assert_eq!(place(&scheduler, &pod, &nodes).await.unwrap(), "h100");
    assert_eq!(
        place(&scheduler, &pod, &nodes).await.unwrap(),
        "h100",
        "again: the same pod"
    );
    assert_eq!(book(&h100).await.unwrap(), [("first".to_owned(), 2)]);

    h100.kill();
    let any = Pod::new("second", 1);
    until_fits(&scheduler, &any, &nodes, &["l40s"], SOON).await;
    let h100 = berthd("h100", "dgx-h100").in_dir_of(&h100).start().await.unwrap();
    until_fits(&scheduler, &any, &nodes, &["h100", "l40s"], SOON).await;
    assert_eq!(
        book(&h100).await.unwrap(),
        [("first".to_owned(), 2)],
        "nothing granted is lost"
    );
    let six_more = Pod::new("third", 6).on("H100");
    assert_eq!(place(&scheduler, &six_more, &nodes).await.unwrap(), "h100");
    assert_eq!(
        fitting(&scheduler, &Pod::new("fourth", 1).on("H100"), &nodes).await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_gpu_with_a_critical_xid_takes_no_pod_within_a_second() {
    let daemon = berthd("h100", "dgx-h100").start().await.unwrap();
    let scheduler = scheduler(&[socket(&daemon)]).await;
    let all = Pod::new("all", 8);
    assert_eq!(fitting(&scheduler, &all, &["h100"]).await, ["h100"]);
    let command = json!({"xid": {"gpu": 3, "code": 48}});
    fs::write(daemon.dir().join("control"), format!("{command}\n")).unwrap();
    until_fits(&scheduler, &all, &["h100"], &[], Duration::from_secs(1)).await;
    let answer = post(&scheduler, "/filter", &all.args(&["h100"])).await;
    let why = answer["FailedAndUnresolvableNodes"]["h100"].as_str().unwrap();
    assert!(why.contains("1 DeviceUnhealthy"), "no eviction mends it: {why}");
    assert_eq!(
        place(&scheduler, &Pod::new("seven", 7), &["h100"]).await.unwrap(),
        "h100"
    );
}

#[tokio::test]
async fn of_three_schedulers_racing_for_the_last_gpus_of_a_real_daemon_one_wins_each() {
    let daemon = berthd("node", "dgx-h100").start().await.unwrap();
    let target = [socket(&daemon)];
    let (one, two, three) = tokio::join!(scheduler(&target), scheduler(&target), scheduler(&target));
    // 24 pods for 8 GPUs: each of the three offers 8, at the same time.
    let crowd = async |scheduler: &Process, name: &str| {
        let mut placed = 0;
        for n in 0..8 {
            let pod = Pod::new(&format!("{name}-{n}"), 1);
            match place(scheduler, &pod, &["node"]).await {
                Ok(_) => placed += 1,
                Err(error) => assert!(error == "nothing fits" || error.starts_with("DeviceHeld: "), "{error}"),
            }
        }
        placed
    };
    let placed = tokio::join!(crowd(&one, "a"), crowd(&two, "b"), crowd(&three, "c"));
    let book = book(&daemon).await.unwrap();
    assert_eq!(
        placed.0 + placed.1 + placed.2,
        book.len(),
        "what was promised is what is held"
    );
    assert!(
        book.iter().all(|(_, devices)| *devices == 1) && book.len() <= 8,
        "{book:?}"
    );
    until_fits(&one, &Pod::new("late", 1), &["node"], &[], SOON).await;
}

#[tokio::test]
async fn a_trace_goes_on_from_kube_scheduler_through_the_scheduler_to_the_daemon() {
    let (collector, endpoint) = Collector::start().await;
    let daemon = berthd("node", "l40s").arg("--otlp-endpoint", &endpoint);
    let daemon = daemon.start().await.unwrap();
    let scheduler = scheduler_with(&[socket(&daemon)], |program| program.arg("--otlp-endpoint", &endpoint)).await;
    let pod = Pod::new("p", 1);
    until_fits(&scheduler, &pod, &["node"], &["node"], SOON).await;
    let trace: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    let header = format!("Host: x\r\ntraceparent: 00-{trace:032x}-00f067aa0ba902b7-01");
    let mut stream = TcpStream::connect(scheduler.address("extender")).await.unwrap();
    let body = pod.bind_args("node").to_string();
    let (status, body) = http_with(&mut stream, "POST /bind", &header, &body).await;
    assert_eq!((status, body.as_str()), (200, r#"{"Error":""}"#));
    let exported = eventually(SOON, async || {
        for program in ["berth-scheduler", "berthd"] {
            let is_there = collector.holds(&[program.as_bytes(), &trace.to_be_bytes()]);
            ensure!(is_there, "{program} has told nothing of the trace");
        }
        Ok(())
    });
    exported.await.unwrap();
}

#[tokio::test]
async fn the_process_ends_cleanly_when_asked_and_clearly_when_it_cannot_start() {
    let daemon = berthd("node", "l40s").start().await.unwrap();
    let mut scheduler = scheduler(&[socket(&daemon)]).await;
    scheduler.terminate().unwrap();
    let status = scheduler.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", scheduler.stderr());

    for (args, code, tells) in [
        (&["--nodes", "nonsense"][..], 2, "http://HOST:PORT"),
        (&["--nodes", "https://a:1"], 2, "--node-ca"),
        (
            &[
                "--nodes",
                "http://a:1",
                "--listen",
                "0.0.0.0:0",
                "--admin",
                "127.0.0.1:0",
            ],
            1,
            "without TLS",
        ),
    ] {
        let ended = Program::new("berth-scheduler", "berth-scheduler")
            .raw_args(args)
            .run(SOON);
        let ended = ended.await.with_context(|| format!("{args:?}")).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(tells), "{args:?}: {}", ended.stderr);
    }
}
