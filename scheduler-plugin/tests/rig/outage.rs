//! A minute without API server in the middle of it, daemons and schedulers that die, requests that come late and again: nothing is
//! booked twice, and every pod ends bound or explained.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use berth_testkit::{eventually, http, rig::in_rig, throughout};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Pod},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::{
    SOON,
    kit::{Cluster, Way, kai_pod, pod},
};

const OUTAGE: Duration = Duration::from_mins(1);
const NODES: [&str; 4] = ["gpu-0000", "gpu-0001", "gpu-0002", "gpu-0003"];

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{prefix}{at}")).collect()
}

impl Cluster {
    /// So many more pairs of kube-scheduler and berth-scheduler, all of them for the same pods.
    async fn race(&mut self, count: usize) {
        self.more_schedulers(count).await;
        let config = fs::read_to_string(self.rig.dir().join("scheduler.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        let program = self.rig.tools().join("kube-scheduler");
        for (name, other) in ["kube-scheduler-2", "kube-scheduler-3"].into_iter().zip(&self.others) {
            let mut config = config.clone();
            config["extenders"][0]["urlPrefix"] = json!(other.extender());
            let path = self.rig.dir().join(format!("{name}.json"));
            fs::write(&path, config.to_string()).unwrap();
            let args = vec![format!("--config={}", path.display()), "--secure-port=0".to_owned()];
            self.rig.start(name, &program, args).unwrap();
        }
    }

    async fn all(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    /// As a kube-scheduler does that took its time: each pod, as it was then, filtered and bound to a node, at every scheduler. What
    /// the schedulers said, empty where the pod is bound there.
    async fn ask_again(&self, pods: &[Pod], node: impl Fn(&Pod) -> String) -> BTreeMap<String, Vec<String>> {
        let schedulers = || std::iter::once(&self.scheduler).chain(&self.others);
        let mut said = BTreeMap::<String, Vec<String>>::new();
        for pod in pods {
            let (name, node) = (pod.name_any(), node(pod));
            let filter = json!({"Pod": pod, "Nodes": null, "NodeNames": NODES});
            let bind = json!({"PodName": name, "PodNamespace": "default", "PodUID": pod.uid(), "Node": node});
            for scheduler in schedulers() {
                let url = scheduler.extender();
                http::request("POST", &format!("{url}/filter"), &filter.to_string())
                    .await
                    .unwrap();
                let answer = http::request("POST", &format!("{url}/bind"), &bind.to_string())
                    .await
                    .unwrap();
                let answer: Value = serde_json::from_str(&answer.body).unwrap();
                said.entry(name.clone())
                    .or_default()
                    .push(answer["Error"].as_str().unwrap().to_owned());
            }
        }
        said
    }

    /// Until each pod is bound, or its event (for KAI) or its condition says why not. Those that are bound, with GPUs of Berth's.
    async fn bound_or_explained(&self, pods: &[String]) -> Vec<String> {
        let mut bound = Vec::new();
        for name in pods {
            let fate = eventually(SOON, async || {
                let pod = self.pod(name).await?;
                if !pod.node().is_empty() && pod.placement().is_ok() {
                    return Ok(true);
                }
                let told = pod.why_not();
                ensure!(
                    told.is_some() || self.is_told(name).await?,
                    "neither bound nor explained"
                );
                Ok(false)
            });
            if fate.await.with_context(|| self.log_of(name)).unwrap() {
                bound.push(name.clone());
            }
        }
        bound
    }

    /// By Berth, that there is no place.
    async fn is_told(&self, pod: &str) -> anyhow::Result<bool> {
        let events: Api<Event> = Api::default_namespaced(self.client());
        let mut all = events.list(&ListParams::default()).await?.items.into_iter();
        Ok(all.any(|event| {
            event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some("BerthNoPlace")
        }))
    }
}

#[test]
fn rig_daemons_and_schedulers_that_die_and_a_minute_without_api_server_book_nothing_twice() {
    in_rig(
        "outage::rig_daemons_and_schedulers_that_die_and_a_minute_without_api_server_book_nothing_twice",
        async || {
            let mut cluster = Cluster::up(4).await;
            cluster.race(2).await;
            let (first, second) = (names("a", 10), names("b", 6));
            cluster.create_all(first.iter().map(|name| pod(name, 1))).await;
            // In the middle of it.
            cluster.restart_scheduler().await;
            cluster.kill_daemon("gpu-0001");
            cluster.create_all(second.iter().map(|name| pod(name, 2))).await;
            let early = cluster.all().await;
            cluster.rig.part("kube-apiserver").unwrap().pause();
            cluster.start_daemon("gpu-0001").await;
            // Requests go on coming, for whatever node.
            let round = std::cell::Cell::new(0);
            let during = throughout(OUTAGE, async || {
                let at = round.replace(round.get() + 1);
                let pod = std::slice::from_ref(&early[at % early.len()]);
                cluster.ask_again(pod, |_| NODES[at % NODES.len()].to_owned()).await;
                Ok(())
            });
            during.await.unwrap();
            cluster.rig.part("kube-apiserver").unwrap().resume();
            let all = [first, second].concat();
            for name in &all {
                cluster.bound(name).await.unwrap();
            }
            // Of 32 GPUs 22 are held, each by one pod, in the pods' words and in the daemons'.
            let taken = cluster.each_gpu_once(&all).await;
            assert_eq!(taken.len(), 22);
            cluster.hold_just(&taken).await;

            // What comes again is done already, or finds no second place; what comes late for another node is refused. Nothing changes.
            let nodes: BTreeMap<String, String> = cluster
                .all()
                .await
                .into_iter()
                .map(|pod| (pod.name_any(), node_of(&pod)))
                .collect();
            let again = cluster.ask_again(&early, |pod| nodes[&pod.name_any()].clone()).await;
            let is_harmless = |error: &String| error.is_empty() || error.contains("devices fit");
            assert!(again.values().flatten().all(is_harmless), "{again:?}");
            let other = |pod: &Pod| {
                NODES
                    .into_iter()
                    .find(|node| *node != nodes[&pod.name_any()])
                    .unwrap()
                    .to_owned()
            };
            let late = cluster.ask_again(&early, other).await;
            assert!(late.values().flatten().all(|error| !error.is_empty()), "{late:?}");
            assert_eq!(cluster.each_gpu_once(&all).await, taken);
            cluster.hold_just(&taken).await;

            // Three for ten GPUs: whoever finds no place hears why.
            let big = names("c", 3);
            cluster.create_all(big.iter().map(|name| pod(name, 4))).await;
            let bound = cluster.bound_or_explained(&big).await;
            assert!(bound.len() < big.len(), "{bound:?} are on 10 GPUs");
            cluster.each_gpu_once(all.iter().chain(&bound)).await;
            // What is gone is free again, also without a kubelet that says so.
            cluster.delete_all().await;
            cluster.holders(0).await;
        },
    );
}

fn node_of(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

#[test]
fn rig_one_of_three_feeds_kai_again_after_a_minute_without_api_server_in_which_the_first_died() {
    in_rig(
        "outage::rig_one_of_three_feeds_kai_again_after_a_minute_without_api_server_in_which_the_first_died",
        async || {
            let mut cluster = Cluster::up_as(4, Way::Kai("bind")).await;
            cluster.more_schedulers(2).await;
            let early = names("p", 10);
            cluster.create_all(early.iter().map(|name| kai_pod(name, 1))).await;
            cluster.rig.part("kube-apiserver").unwrap().pause();
            cluster.kill_daemon("gpu-0001");
            throughout(OUTAGE, async || Ok(())).await.unwrap();
            cluster.start_daemon("gpu-0001").await;
            cluster.kill_scheduler();
            cluster.rig.part("kube-apiserver").unwrap().resume();
            let late = names("q", 10);
            cluster.create_all(late.iter().map(|name| kai_pod(name, 1))).await;
            let all = [early, late].concat();
            for name in &all {
                cluster.bound(name).await.unwrap();
            }
            // Where Berth found none in time KAI did, and the pod says so.
            let placed = cluster.bound_or_explained(&all).await;
            let taken = cluster.each_gpu_once(&placed).await;
            assert!(taken.len() > all.len() / 2, "{} pods were placed by Berth", taken.len());
            cluster.hold_just(&taken).await;
            // One of those that live leads.
            let leases: Api<Lease> = Api::all(cluster.client());
            let ours = eventually(SOON, async || {
                let all = leases.list(&ListParams::default()).await?;
                let ours = all.into_iter().filter(|lease| lease.name_any().contains("berth"));
                let holders: BTreeSet<_> = ours.filter_map(|lease| lease.spec?.holder_identity).collect();
                ensure!(holders.len() == 1, "{holders:?}");
                Ok(holders)
            });
            ours.await.unwrap();
        },
    );
}
