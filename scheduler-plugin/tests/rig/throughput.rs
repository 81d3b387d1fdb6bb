//! A measurement, not a test: how fast pods are bound at 500 kwok nodes, with Berth and without, in one run, and what each program
//! takes for it. The command and figures are in `benches/README.md`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use berth_testkit::{
    cpu_time,
    rig::{Requests, in_rig},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use crate::kit::{Cluster, Way, kai_pod, pod};

const NODES: usize = 500;
/// Pods one after the other, for the latency.
const ALONE: usize = 30;
/// Pods at once, for the rate.
const CROWD: u32 = 500;
const SETTLE: Duration = Duration::from_secs(3);

#[test]
fn throughput() {
    for (name, way) in [
        ("kube-scheduler alone", Way::Alone),
        ("kube-scheduler with Berth", Way::KubeScheduler),
        ("kube-scheduler with Berth, scored", Way::Scored),
        ("KAI alone", Way::KaiAlone),
        ("KAI, hint", Way::Kai("hint")),
        ("KAI, bind", Way::Kai("bind")),
    ] {
        // Namespaces of its own for each, and the same test told by a variable which it is.
        let this = std::env::var("BERTH_THROUGHPUT");
        if this.as_deref().is_ok_and(|this| this != name) {
            continue;
        }
        temp_env(name, || {
            in_rig("throughput::throughput", async || measure(name, way).await);
        });
    }
}

fn temp_env(name: &str, body: impl FnOnce()) {
    if std::env::var_os("BERTH_THROUGHPUT").is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this)
        .args(["--exact", "throughput::throughput", "--nocapture"])
        .env("BERTH_THROUGHPUT", name)
        .status();
    assert!(status.unwrap().success(), "{name}");
}

#[expect(clippy::print_stdout, reason = "that is what it is for")]
async fn measure(name: &str, way: Way) {
    let cluster = Cluster::without_daemons(NODES, way).await;
    let pods: Api<Pod> = cluster.pods();
    let make = |name: String| match way {
        Way::Alone | Way::KubeScheduler | Way::Scored => pod(&name, 1),
        Way::KaiAlone | Way::Kai(_) => kai_pod(&name, 1),
    };
    let mut alone = Vec::new();
    for at in 0..ALONE {
        let name = format!("alone-{at}");
        let bound = bound(&pods, 1);
        let started = now();
        cluster.create_all([make(name)]).await;
        bound.await;
        alone.push(started.elapsed());
        clear(&pods).await;
    }
    alone.sort_unstable();
    let pids = cluster.pids();
    let log = cluster.audit_log();
    let requests = |from| log.as_ref().map(|log| Requests::since(log, from).unwrap());
    let (cpu, asked) = (ran(&pids), requests(0));
    let all_bound = bound(&pods, CROWD);
    let started = now();
    let created = async {
        stream::iter(0..CROWD)
            .for_each_concurrent(8, async |at| {
                let pod = serde_json::from_value(make(format!("crowd-{at}"))).unwrap();
                pods.create(&PostParams::default(), &pod).await.unwrap();
            })
            .await;
        started.elapsed()
    };
    let (created, ()) = tokio::join!(created, all_bound);
    let took = started.elapsed();
    let rate = f64::from(CROWD) / took.as_secs_f64();
    let so_far = ran(&pids);
    let spent = |until: &BTreeMap<&'static str, Duration>| -> BTreeMap<&'static str, u128> {
        until
            .iter()
            .map(|(part, took)| (*part, took.saturating_sub(cpu[part]).as_millis()))
            .collect()
    };
    // What is told after the fact is counted, too.
    tokio::time::sleep(SETTLE).await;
    println!(
        "{}",
        json!({"way": name, "cpu_ms_until_bound": spent(&so_far), "cpu_ms_of_the_crowd": spent(&ran(&pids))})
    );
    if let Some(asked) = asked.and_then(|asked| requests(asked.lines)) {
        println!("{}", json!({"way": name, "requests_of_the_crowd": asked.by}));
    }
    let report = json!({
        "way": name, "nodes": NODES, "one_p50_ms": alone[alone.len() / 2].as_millis(), "one_max_ms": alone[alone.len() - 1].as_millis(),
        "pods": CROWD, "created_s": created.as_secs_f64(), "bound_s": took.as_secs_f64(), "pods_per_s": rate,
    });
    println!("{report}");
}

/// CPU time of each so far.
fn ran(pids: &BTreeMap<&'static str, u32>) -> BTreeMap<&'static str, Duration> {
    let times = pids.iter().map(|(name, pid)| (*name, cpu_time(*pid).unwrap()));
    times.collect()
}

/// Until so many pods are bound.
async fn bound(pods: &Api<Pod>, count: u32) {
    let mut seen = std::collections::BTreeSet::new();
    let mut events = watcher(pods.clone(), watcher::Config::default())
        .applied_objects()
        .boxed();
    while let Some(pod) = events.try_next().await.unwrap() {
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            seen.insert(pod.name_any());
        }
        if seen.len() >= count as usize {
            return;
        }
    }
}

async fn clear(pods: &Api<Pod>) {
    let params = DeleteParams::default().grace_period(0);
    pods.delete_collection(&params, &ListParams::default()).await.unwrap();
    while !pods.list(&ListParams::default()).await.unwrap().items.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the real clock")]
fn now() -> Instant {
    Instant::now()
}
