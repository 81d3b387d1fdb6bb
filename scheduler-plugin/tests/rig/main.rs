//! berth-scheduler on real parts: etcd, kube-apiserver, kube-scheduler with the configuration as it ships, kwok nodes, and a
//! real berthd with simulated devices for each of them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

mod kai;
mod kit;
mod outage;
#[cfg(feature = "measure")]
mod throughput;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_testkit::{http, rig::in_rig};
use serde_json::{Value, json};

use kit::{Cluster, Way, pod};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn rig_function_pods_land_packed_where_the_engine_says_and_a_broken_gpu_takes_none() {
    in_rig(
        "rig_function_pods_land_packed_where_the_engine_says_and_a_broken_gpu_takes_none",
        async || {
            let cluster = Cluster::up(20).await;
            // 200 pods, 80 GPUs of 160.
            let sizes = [(0, 132), (1, 60), (2, 6), (4, 2)];
            let all = sizes
                .iter()
                .flat_map(|(gpus, count)| std::iter::repeat_n(*gpus, *count));
            let pods: Vec<(String, u32)> = all.enumerate().map(|(at, gpus)| (format!("p{at}"), gpus)).collect();
            cluster
                .create_all(pods.iter().map(|(name, gpus)| pod(name, *gpus)))
                .await;
            for (name, _) in &pods {
                cluster.bound(name).await.unwrap();
            }
            // Each device once, on the node that the decision named best, and the pod's annotation says so.
            let with_gpus = || pods.iter().filter(|(_, gpus)| *gpus > 0);
            let taken = cluster.each_gpu_once(with_gpus().map(|(name, _)| name)).await;
            assert_eq!(taken.len(), 80);
            cluster.follows_its_decisions(with_gpus()).await;
            let nodes: BTreeSet<&String> = taken.values().collect();
            assert!(nodes.len() <= 12, "80 GPUs are spread over {nodes:?}");
            let event = cluster.event("p132", "BerthPlaced").await.unwrap();
            assert!(event.contains("GPU-") && event.contains("by fragmentation"), "{event}");
            // The daemons' books say the same.
            let held = cluster.holders(80).await;
            assert_eq!(held.values().map(BTreeSet::len).sum::<usize>(), 80);
            assert!(held.values().flatten().all(|holder| holder.starts_with("default/p")));

            // A GPU of a free node breaks: no pod for the whole node, until it is well again.
            let free = (0..20)
                .map(|at| format!("gpu-{at:04}"))
                .find(|node| !nodes.contains(node))
                .unwrap();
            cluster.order(&free, r#"{"xid":{"gpu":3,"code":79}}"#);
            cluster.health(&free, "Unhealthy").await;
            let mut whole = pod("whole", 8);
            whole["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": free});
            cluster.create_all([whole]).await;
            let event = cluster.event("whole", "BerthNoPlace").await.unwrap();
            assert!(event.contains("InsufficientDevices"), "{event}");
            assert!(cluster.pod("whole").await.unwrap().node().is_empty());
            cluster.mend(&free, 3).await;
            cluster.health(&free, "Healthy").await;
            cluster.bound("whole").await.unwrap();
        },
    );
}

#[test]
fn rig_pods_land_where_berth_ranks_them_best_where_kube_scheduler_scores_all_nodes() {
    in_rig(
        "rig_pods_land_where_berth_ranks_them_best_where_kube_scheduler_scores_all_nodes",
        async || {
            let cluster = Cluster::up_as(6, Way::Scored).await;
            // One after the other: what the best node is depends on those before.
            let pods: Vec<(String, u32)> = [1, 4, 2, 8, 1, 4, 2, 1]
                .into_iter()
                .enumerate()
                .map(|(at, gpus)| (format!("p{at}"), gpus))
                .collect();
            for (name, gpus) in &pods {
                cluster.create_all([pod(name, *gpus)]).await;
                cluster.bound(name).await.unwrap();
            }
            let taken = cluster.each_gpu_once(pods.iter().map(|(name, _)| name)).await;
            assert_eq!(taken.len(), 23);
            cluster.follows_its_decisions(&pods).await;
            let metrics = http::get(&format!("{}/metrics", cluster.scheduler.admin()))
                .await
                .unwrap();
            let scored = r#"berth_extender_request_duration_seconds_count{verb="prioritize",outcome="ok"} 8"#;
            assert!(metrics.body.contains(scored), "{}", metrics.body);
        },
    );
}

#[test]
fn rig_a_pod_that_is_more_important_evicts_just_whom_it_must_and_gets_their_gpus() {
    in_rig(
        "rig_a_pod_that_is_more_important_evicts_just_whom_it_must_and_gets_their_gpus",
        async || {
            let cluster = Cluster::up(1).await;
            cluster.priority("high", 1000).await;
            for name in ["a", "b", "c", "d"] {
                cluster.create_all([pod(name, 2)]).await;
                cluster.bound(name).await.unwrap();
            }
            let mut devices = BTreeMap::new();
            for name in ["a", "b", "c", "d"] {
                devices.insert(name, cluster.pod(name).await.unwrap().devices());
            }
            let mut important = pod("important", 2);
            important["spec"]["priorityClassName"] = json!("high");
            cluster.create_all([important]).await;
            cluster.bound("important").await.unwrap();
            let left: Vec<_> = cluster.names().await;
            assert_eq!(left.len(), 4, "exactly one was evicted: {left:?}");
            let victim = ["a", "b", "c", "d"]
                .into_iter()
                .find(|name| !left.contains(&(*name).to_owned()))
                .unwrap();
            assert_eq!(cluster.pod("important").await.unwrap().devices(), devices[victim]);
        },
    );
}

/// Of a page of decisions, by id.
fn by_id(page: &Value) -> BTreeMap<String, Value> {
    let decisions = page.as_array().into_iter().flatten();
    decisions
        .filter_map(|decision| Some((decision["id"].as_str()?.to_owned(), decision.clone())))
        .collect()
}
