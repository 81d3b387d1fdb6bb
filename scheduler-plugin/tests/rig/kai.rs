//! Through KAI: the real one where its variables are set, else the stand-in.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use berth_testkit::{
    eventually, http,
    kai::{PodGroup, PodGroupSpec, QueueResource, queue, unlimited},
    rig::in_rig,
};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    SOON,
    kit::{Cluster, Way, kai_pod},
};

/// 200 pods on 20 nodes, 80 GPUs of 160: packed, each GPU once, and each pod says where and why. Then a GPU breaks.
async fn two_hundred_pods(mode: &'static str) {
    let cluster = Cluster::up_as(20, Way::Kai(mode)).await;
    let sizes = [(0, 132), (1, 60), (2, 6), (4, 2)];
    let all = sizes
        .iter()
        .flat_map(|(gpus, count)| std::iter::repeat_n(*gpus, *count));
    let pods: Vec<(String, u32)> = all.enumerate().map(|(at, gpus)| (format!("p{at}"), gpus)).collect();
    // Pods without GPUs are KAI's alone, and it packs them wherever it likes: on a node to which it was just told to send others.
    let (without, with): (Vec<_>, Vec<_>) = pods.iter().partition(|(_, gpus)| *gpus == 0);
    for pods in [with, without] {
        cluster
            .create_all(pods.iter().map(|(name, gpus)| kai_pod(name, *gpus)))
            .await;
        for (name, _) in pods {
            cluster.bound(name).await.unwrap();
        }
    }
    let with_gpus = || pods.iter().filter(|(_, gpus)| *gpus > 0);
    let taken = cluster.each_gpu_once(with_gpus().map(|(name, _)| name)).await;
    assert_eq!(taken.len(), 80);
    cluster.follows_its_decisions(with_gpus()).await;
    let nodes: BTreeSet<&String> = taken.values().collect();
    assert!(nodes.len() <= 12, "80 GPUs are spread over {nodes:?}");
    let event = cluster.event("p132", "BerthPlaced").await.unwrap();
    assert!(event.contains("GPU-") && event.contains("by fragmentation"), "{event}");
    assert_eq!(cluster.holders(80).await.len(), 80, "the daemons' books say the same");

    // Seven of the eight GPUs of a free node take pods, and the broken one none.
    let free = (0..20)
        .map(|at| format!("gpu-{at:04}"))
        .find(|node| !nodes.contains(node))
        .unwrap();
    cluster.order(&free, r#"{"xid":{"gpu":3,"code":79}}"#);
    cluster.health(&free, "Unhealthy").await;
    let there = |name: &str, gpus| {
        let mut pod = kai_pod(name, gpus);
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": free});
        pod
    };
    cluster
        .create_all((0..7).map(|at| there(&format!("well-{at}"), 1)))
        .await;
    for at in 0..7 {
        cluster.bound(&format!("well-{at}")).await.unwrap();
    }
    let broken = cluster.device(&free, 3).await;
    for at in 0..7 {
        let devices = cluster.pod(&format!("well-{at}")).await.unwrap().devices();
        assert!(devices.len() == 1 && !devices.contains(&broken), "{devices:?}");
    }
    // By the number of GPUs KAI would place it.
    cluster.create_all([there("eighth", 1)]).await;
    let event = cluster.event("eighth", "BerthNoPlace").await.unwrap();
    if mode == "hint" {
        assert!(event.contains("left to KAI"), "{event}");
        unschedulable(&cluster, "eighth").await;
    } else {
        assert!(event.contains("kept from KAI"), "{event}");
    }
    // KAI goes through its cycle meanwhile.
    cluster.create_all([other_of_kais("other")]).await;
    cluster.bound("other").await.unwrap();
    assert!(
        cluster.pod("eighth").await.unwrap().node().is_empty(),
        "it got the broken GPU"
    );
    cluster.mend(&free, 3).await;
    cluster.bound("eighth").await.unwrap();
}

/// A pod that Berth has nothing to do with.
fn other_of_kais(name: &str) -> Value {
    let mut pod = kai_pod(name, 0);
    pod["metadata"]["labels"] = json!({"gpu.berth.dev/managed": "false"});
    pod
}

#[test]
fn rig_kai_is_told_where_two_hundred_function_pods_go_and_takes_it() {
    in_rig(
        "kai::rig_kai_is_told_where_two_hundred_function_pods_go_and_takes_it",
        async || two_hundred_pods("hint").await,
    );
}

#[test]
fn rig_kai_accounts_two_hundred_function_pods_that_berth_binds() {
    in_rig(
        "kai::rig_kai_accounts_two_hundred_function_pods_that_berth_binds",
        async || two_hundred_pods("bind").await,
    );
}

#[test]
fn rig_kai_gets_nothing_twice_from_three_schedulers_that_race_for_the_same_pods() {
    in_rig(
        "kai::rig_kai_gets_nothing_twice_from_three_schedulers_that_race_for_the_same_pods",
        async || {
            let mut cluster = Cluster::up_as(4, Way::Kai("bind")).await;
            cluster.more_schedulers(2).await;
            let pods: Vec<String> = (0..28).map(|at| format!("p{at}")).collect();
            cluster.create_all(pods.iter().map(|name| kai_pod(name, 1))).await;
            // Each of the three reserves for each pod, and one binds it; meanwhile it can look full, and a pod is left to KAI.
            let mut placed = Vec::new();
            for name in &pods {
                cluster.bound(name).await.unwrap();
                let pod = cluster.pod(name).await.unwrap();
                if pod.placement().is_ok() {
                    assert_ne!(pod.annotation("pod-group-name"), "", "{name}: KAI does not account it");
                    placed.push(name);
                } else {
                    let left = cluster.event(name, "BerthNoPlace").await;
                    left.with_context(|| cluster.log_of(name)).unwrap();
                }
            }
            let taken = cluster.each_gpu_once(placed).await;
            assert!(
                taken.len() > pods.len() / 2,
                "{} pods were placed by Berth",
                taken.len()
            );
            // What the losers had reserved is given back.
            cluster.hold_just(&taken).await;
        },
    );
}

#[test]
fn rig_kai_goes_on_alone_where_berth_is_away() {
    in_rig("kai::rig_kai_goes_on_alone_where_berth_is_away", async || {
        let mut cluster = Cluster::up_as(2, Way::Kai("hint")).await;
        cluster.kill_scheduler();
        cluster.create_all((0..4).map(|at| kai_pod(&format!("p{at}"), 1))).await;
        for at in 0..4 {
            cluster.bound(&format!("p{at}")).await.unwrap();
            let pod = cluster.pod(&format!("p{at}")).await.unwrap();
            assert!(pod.placement().is_err(), "nobody decided");
        }
    });
}

#[test]
fn rig_kai_gets_gangs_whole_parts_of_gpus_and_queues_kept_and_evicts_nothing_of_berths() {
    in_rig(
        "kai::rig_kai_gets_gangs_whole_parts_of_gpus_and_queues_kept_and_evicts_nothing_of_berths",
        async || {
            let cluster = Cluster::up_as(2, Way::Kai("bind")).await;
            let client = cluster.client();

            // A gang: not before it is whole, and then all of it.
            let groups: Api<PodGroup> = Api::default_namespaced(client.clone());
            let spec = PodGroupSpec {
                min_member: 2,
                queue: "default-queue".to_owned(),
                ..PodGroupSpec::default()
            };
            groups
                .create(&PostParams::default(), &PodGroup::new("gang", spec))
                .await
                .unwrap();
            let member = |name: &str| {
                let mut pod = kai_pod(name, 4);
                pod["metadata"]["annotations"] = json!({"pod-group-name": "gang"});
                pod
            };
            cluster.create_all([member("m1")]).await;
            cluster.create_all([kai_pod("after", 1)]).await;
            cluster.bound("after").await.unwrap();
            assert!(cluster.pod("m1").await.unwrap().node().is_empty(), "half a gang runs");
            cluster.create_all([member("m2")]).await;
            for name in ["m1", "m2"] {
                cluster.bound(name).await.unwrap();
                assert_eq!(cluster.pod(name).await.unwrap().annotation("pod-group-name"), "gang");
                assert_eq!(cluster.pod(name).await.unwrap().devices().len(), 4);
            }

            // A part of a GPU, through KAI's binder.
            let mut part = kai_pod("part", 0);
            part["metadata"]["annotations"] = json!({"gpu-fraction": "0.25", "runai/shared-gpu-configmap": "part-gpu"});
            cluster.create_all([part]).await;
            cluster.bound("part").await.unwrap();
            let placement = cluster.pod("part").await.unwrap().placement().unwrap();
            assert_eq!(
                (placement.devices[0].milli, placement.node.as_str()),
                (250, cluster.pod("part").await.unwrap().node())
            );

            // A queue that is full: told, left to KAI, and KAI keeps to it too.
            let mut narrow = unlimited();
            narrow.gpu = QueueResource {
                quota: 1.0,
                limit: 1.0,
                over_quota_weight: 1.0,
            };
            queue(&client, "narrow", "default-parent-queue", narrow).await.unwrap();
            let in_queue = |name: &str| {
                let mut pod = kai_pod(name, 1);
                pod["metadata"]["labels"]["kai.scheduler/queue"] = json!("narrow");
                pod
            };
            cluster.create_all([in_queue("fits")]).await;
            cluster.bound("fits").await.unwrap();
            cluster.create_all([in_queue("over")]).await;
            let event = cluster.event("over", "BerthNoPlace").await.unwrap();
            assert!(event.contains("QueueOverLimit"), "{event}");
            cluster.pods().delete("over", &DeleteParams::default()).await.unwrap();

            // Somebody important of KAI's own, for whom there is no room: it evicts nobody that Berth bound.
            let before: BTreeSet<String> = cluster.names().await.into_iter().collect();
            let mut greedy = kai_pod("greedy", 8);
            greedy["metadata"]["labels"] = json!({"gpu.berth.dev/managed": "false", "priorityClassName": "inference"});
            cluster.create_all([greedy]).await;
            unschedulable(&cluster, "greedy").await;
            let after: BTreeSet<String> = cluster.names().await.into_iter().collect();
            assert_eq!(before.difference(&after).collect::<Vec<_>>(), Vec::<&String>::new());
        },
    );
}

#[test]
fn rig_kai_evicts_nothing_of_berths_where_somebody_edits_or_deletes_its_group() {
    in_rig(
        "kai::rig_kai_evicts_nothing_of_berths_where_somebody_edits_or_deletes_its_group",
        async || {
            let cluster = Cluster::up_as(1, Way::Kai("bind")).await;
            let pods: Vec<String> = (0..7).map(|at| format!("p{at}")).collect();
            cluster.create_all(pods.iter().map(|name| kai_pod(name, 1))).await;
            for name in &pods {
                cluster.bound(name).await.unwrap();
            }
            let groups: Api<PodGroup> = Api::default_namespaced(cluster.client());
            let name = cluster.pod("p0").await.unwrap().annotation("pod-group-name").to_owned();
            let until = async |is_right: &dyn Fn(&PodGroup) -> bool| {
                let right = eventually(SOON, async || {
                    let group = groups.get(&name).await?;
                    ensure!(is_right(&group), "{group:?}");
                    Ok(group)
                });
                right.await.unwrap()
            };
            let made = until(&|_| true).await;
            let edit = Patch::Merge(json!({"metadata": {"labels": null}, "spec": {"preemptibility": "preemptible"}}));
            groups.patch(&name, &PatchParams::default(), &edit).await.unwrap();
            let edited = until(&|group| group.spec == made.spec && group.metadata.labels == made.metadata.labels).await;
            assert_eq!(edited.metadata.uid, made.metadata.uid);
            groups.delete(&name, &DeleteParams::default()).await.unwrap();
            let again = until(&|group| group.metadata.uid != made.metadata.uid).await;
            assert_eq!(again.spec, made.spec);
            let told = eventually(SOON, async || {
                let page = http::get(&format!("{}/metrics", cluster.scheduler.admin())).await?.body;
                let is_told = |was: &&str| page.contains(&format!(r#"kai_groups_put_right_total{{was="{was}"}} 1"#));
                ensure!(["deleted", "changed"].iter().all(is_told), "{page}");
                Ok(())
            });
            told.await.unwrap();

            let mut greedy = kai_pod("greedy", 8);
            greedy["metadata"]["labels"] = json!({"gpu.berth.dev/managed": "false", "priorityClassName": "inference"});
            cluster.create_all([greedy]).await;
            unschedulable(&cluster, "greedy").await;
            let names = cluster.names().await;
            assert!(pods.iter().all(|name| names.contains(name)), "{names:?}");
        },
    );
}

#[test]
fn rig_kai_puts_no_pod_on_a_broken_gpu_where_it_does_not_follow_the_hint() {
    in_rig(
        "kai::rig_kai_puts_no_pod_on_a_broken_gpu_where_it_does_not_follow_the_hint",
        async || {
            let mut cluster = Cluster::up_as(2, Way::Kai("hint")).await;
            let (hinted, broken) = ("gpu-0000", "gpu-0001");
            cluster.order(broken, r#"{"xid":{"gpu":3,"code":79}}"#);
            cluster.health(broken, "Unhealthy").await;
            let mut full = kai_pod("full", 7);
            full["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": broken});
            cluster.create_all([full]).await;
            cluster.bound("full").await.unwrap();

            // The one node that takes the pod is closed before KAI looks at it.
            cluster.rig.part("kai-scheduler").unwrap().pause();
            cluster.create_all([kai_pod("astray", 1)]).await;
            let hint = eventually(SOON, async || {
                let pod = cluster.pods().get("astray").await?;
                let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
                ensure!(spec.scheduling_gates.is_none(), "it is gated");
                Ok(status.nominated_node_name)
            });
            assert_eq!(hint.await.unwrap().as_deref(), Some(hinted));
            let nodes: Api<Node> = Api::all(cluster.client());
            nodes.cordon(hinted).await.unwrap();
            cluster.rig.part("kai-scheduler").unwrap().resume();
            unplaced(&cluster, "astray").await;
            cluster.create_all([other_of_kais("other")]).await;
            cluster.bound("other").await.unwrap();
            let pod = cluster.pod("astray").await.unwrap();
            assert_eq!(pod.node(), "", "it got the broken GPU");

            cluster.mend(broken, 3).await;
            cluster.bound("astray").await.unwrap();
            assert_eq!(cluster.pod("astray").await.unwrap().node(), broken);
        },
    );
}

/// Until KAI has said of the pod that it finds no place for it, twice: in the second cycle at the latest it would evict.
async fn unschedulable(cluster: &Cluster, name: &str) {
    unplaced(cluster, name).await;
    // One more decision of Berth's own goes by meanwhile: no clock is needed to see a cycle.
    cluster.create_all([kai_pod("last", 1)]).await;
    cluster.bound("last").await.unwrap();
    assert!(cluster.names().await.iter().any(|it| it == name));
    cluster.pods().delete("last", &DeleteParams::default()).await.unwrap();
}

/// Until KAI has said so once.
async fn unplaced(cluster: &Cluster, name: &str) {
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let pods: Api<Pod> = cluster.pods();
    let said = eventually(SOON, async || {
        let all = events.list(&ListParams::default()).await?;
        let is_its = |event: &&Event| event.involved_object.name.as_deref() == Some(name);
        let told = all.iter().filter(is_its).count();
        let pod: Value = serde_json::to_value(pods.get(name).await?)?;
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let refused = conditions
            .iter()
            .any(|it| it["type"] == "PodScheduled" && it["status"] == "False");
        ensure!(told > 0 || refused, "KAI has not said anything: {conditions:?}");
        Ok(())
    });
    said.await.unwrap();
}
