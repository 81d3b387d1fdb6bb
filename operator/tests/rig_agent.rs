//! The agent as a process: with nothing around it, and between a real API server and `fake-sis`.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

#[path = "rig_agent/kit.rs"]
mod kit;
#[cfg(feature = "measure")]
#[path = "rig_agent/measure.rs"]
mod measure;

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use berth_kube_api::GpuNode;
use berth_runtime::{Clock as _, SystemClock};
use berth_testkit::{Program, eventually, http, rig::RigConfig};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use kit::{Cluster, SOON, create_kinds, healthz, in_rig};

#[tokio::test]
async fn an_agent_that_lacks_everything_serves_and_says_what_it_lacks() {
    let agent = Program::new("nvca", "berth-operator")
        .arg("--config", "{dir}/config.yaml")
        .arg("--kubeconfig", "{dir}/kubeconfig");
    let config = agent.dir().join("config.yaml");
    let text = "agent: {svcAddress: '127.0.0.1:0', adminAddr: '127.0.0.1:0'}\nauthz: {selfManagedVaultSecretsJSONPath: /none}\n";
    fs::write(&config, text).unwrap();
    let mut agent = agent.start().await.unwrap();
    let told = eventually(SOON, async || {
        let (status, page) = healthz(&agent).await?;
        ensure!(status == 503 && page["Status"] == "unhealthy", "{status} {page}");
        for (component, reason) in [
            ("config", "ClusterNotRegistered"),
            ("kubernetes", "NoAccess"),
            ("sis-registration", "ClusterNotRegistered"),
            ("gpu", "Starting"),
        ] {
            let error = page["Components"][component]["Errors"][0].as_str().unwrap_or_default();
            ensure!(error.starts_with(reason), "{component}: {page}");
        }
        Ok(())
    });
    told.await.unwrap();
    // The operator's bootstrap came to its end: no restart is needed.
    fs::write(&config, format!("{text}cluster: {{id: c-1}}\n")).unwrap();
    let taken = eventually(SOON, async || {
        let (_, page) = healthz(&agent).await?;
        ensure!(page["Components"]["config"]["Status"] == "healthy", "{page}");
        Ok(())
    });
    taken.await.unwrap();
    let service = format!("http://{}", agent.address("http"));
    for (path, body) in [("livez", "ok\n"), ("version", concat!(env!("CARGO_PKG_VERSION"), "+"))] {
        let answer = http::get(&format!("{service}/{path}")).await.unwrap();
        assert!(
            answer.status == 200 && answer.body.starts_with(body),
            "{path}: {}",
            answer.body
        );
    }
    let metrics = http::get(&format!("{service}/metrics")).await.unwrap().body;
    assert!(metrics.contains("nvca_gpu_node_unclassified_count{") && metrics.contains("berth_build_info{"));
    agent.terminate().unwrap();
    assert_eq!(agent.wait(SOON).await.unwrap().code(), Some(0));
}

#[test]
fn rig_agent_tells_sis_what_the_cluster_has_and_of_a_failed_gpu_within_five_seconds() {
    in_rig(
        "rig_agent_tells_sis_what_the_cluster_has_and_of_a_failed_gpu_within_five_seconds",
        async || {
            let cluster = Cluster::up(3).await;
            // No daemon tells of the GPUs, nor is there a kind for that: labels and the kubelet do.
            cluster.usage_is([24, 24, 0]).await;
            let healthy = eventually(SOON, async || {
                let (status, page) = healthz(&cluster.agent).await?;
                ensure!(status == 200 && page["Status"] == "healthy", "{status} {page}");
                Ok(page)
            });
            let page = healthy.await.unwrap();
            assert_eq!(page["GPUUsage"]["H100"]["capacity"], 24);
            assert!(page["k8sVersion"].as_str().unwrap().starts_with("v1."), "{page}");
            cluster.label_is("gpu-0001", Some("NCP.GPU.H100")).await;
            let multi = ["NCP.GPU.H100_8x.x2", "NCP.GPU.H100_8x.x3"];
            assert!(
                multi
                    .iter()
                    .all(|name| cluster.types_of(&cluster.state()).contains(&(*name).to_owned()))
            );

            // With daemons, a GPU breaks.
            cluster.install_gpu_nodes().await;
            cluster.usage_is([24, 24, 0]).await;
            let clock = SystemClock::new();
            let start = clock.monotonic();
            cluster
                .change_device("gpu-0000", 3, &json!({"health": "Unhealthy", "freeMilli": 0}))
                .await;
            cluster.usage_is([23, 23, 0]).await;
            let took = clock.monotonic().saturating_sub(start);
            assert!(took < Duration::from_secs(5), "{took:?}");
            // What somebody else has cannot be had.
            let held = json!({"holders": ["default/notebook"], "freeMilli": 0});
            cluster.change_device("gpu-0000", 4, &held).await;
            cluster.usage_is([22, 23, 1]).await;

            // A node that takes no pods has no label, and loses no type.
            let nodes: Api<Node> = Api::all(cluster.client());
            let cordon = |is: bool| Patch::Merge(json!({"spec": {"unschedulable": is}}));
            let types = cluster.types_of(&cluster.state());
            nodes
                .patch("gpu-0001", &PatchParams::default(), &cordon(true))
                .await
                .unwrap();
            cluster.label_is("gpu-0001", None).await;
            cluster.usage_is([14, 15, 1]).await;
            assert_eq!(cluster.types_of(&cluster.state()), types);
            nodes
                .patch("gpu-0001", &PatchParams::default(), &cordon(false))
                .await
                .unwrap();
            cluster.label_is("gpu-0001", Some("NCP.GPU.H100")).await;

            // A node that is gone takes its shapes along.
            nodes.delete("gpu-0002", &DeleteParams::default()).await.unwrap();
            cluster.usage_is([14, 15, 1]).await;
            let gone = eventually(SOON, async || {
                let types = cluster.types_of(&cluster.state());
                ensure!(
                    types.last().map(String::as_str) == Some("NCP.GPU.H100_8x.x2"),
                    "{types:?}"
                );
                Ok(())
            });
            gone.await.unwrap();
            let metrics = format!("http://{}/metrics", cluster.agent.address("http"));
            let metrics = http::get(&metrics).await.unwrap().body;
            let resident = metrics
                .lines()
                .find_map(|line| line.strip_prefix("berth_process_resident_memory_bytes "))
                .context("no memory")
                .unwrap();
            let mib = resident.parse::<u64>().unwrap() >> 20;
            // A program with debug assertions has half as much code again in memory.
            let most = if cfg!(debug_assertions) { 45 } else { 30 };
            assert!(mib <= most, "{mib} MiB");
        },
    );
}

#[test]
fn rig_agent_offers_the_gpus_that_its_configuration_lists_and_leaves_the_labels_to_people() {
    in_rig(
        "rig_agent_offers_the_gpus_that_its_configuration_lists_and_leaves_the_labels_to_people",
        async || {
            let config = RigConfig {
                nodes: 1,
                nats: true,
                ..RigConfig::default()
            };
            let cluster = Cluster::with(config, async |rig, agent| {
                create_kinds(&rig.client()).await;
                let path = agent.dir().join("config.yaml");
                let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                config["agent"]["staticGPUs"] = json!([{"name": "H100", "capacity": 4, "instanceTypes": [
                    {"name": "NCP.GPU.H100_2x", "value": "by-hand", "gpuCount": 2, "default": true}]}]);
                fs::write(&path, config.to_string()).unwrap();
                agent.start().await.unwrap()
            })
            .await;
            // Its node has eight, of which the list has four.
            cluster.usage_is([4, 4, 0]).await;
            assert_eq!(cluster.types_of(&cluster.state()), ["NCP.GPU.H100_2x"]);
            cluster.ask_for_pairs(2).await;
            cluster.usage_is([0, 4, 4]).await;
            cluster.label_is("gpu-0000", None).await;
            let pods: Api<Pod> = Api::namespaced(cluster.client(), "nvcf-backend");
            let made = eventually(SOON, async || {
                let pods = pods.list(&ListParams::default()).await?.items;
                ensure!(pods.len() == 2, "{} pods", pods.len());
                Ok(pods)
            });
            let pod = serde_json::to_value(&made.await.unwrap()[0]).unwrap();
            let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
            let values = &required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"];
            assert_eq!(*values, json!(["by-hand"]), "as people label the nodes");
        },
    );
}

#[test]
fn rig_agent_goes_on_after_the_api_server_was_away() {
    in_rig("rig_agent_goes_on_after_the_api_server_was_away", async || {
        let mut cluster = Cluster::up(1).await;
        cluster.install_gpu_nodes().await;
        cluster.usage_is([8, 8, 0]).await;
        cluster.rig.part("kube-apiserver").unwrap().pause();
        let (status, page): (u16, Value) = healthz(&cluster.agent).await.unwrap();
        assert_eq!(status, 200, "what is known stays known: {page}");
        cluster.rig.part("kube-apiserver").unwrap().resume();
        cluster.rig.wait_ready().await.unwrap();
        cluster
            .change_device("gpu-0000", 0, &json!({"health": "Unhealthy"}))
            .await;
        cluster.usage_is([7, 7, 0]).await;
        let gpu_nodes: Api<GpuNode> = Api::all(cluster.client());
        gpu_nodes.delete("gpu-0000", &DeleteParams::default()).await.unwrap();
        cluster.usage_is([8, 8, 0]).await;
    });
}

#[test]
fn rig_agent_runs_what_sis_asks_for_and_tells_what_it_holds() {
    in_rig("rig_agent_runs_what_sis_asks_for_and_tells_what_it_holds", async || {
        let cluster = Cluster::up(1).await;
        cluster.install_gpu_nodes().await;
        cluster.usage_is([8, 8, 0]).await;
        cluster.ask_for_pairs(3).await;
        cluster.usage_is([2, 8, 6]).await;
        let pods: Api<Pod> = Api::namespaced(cluster.client(), "nvcf-backend");
        let made = eventually(SOON, async || {
            let pods = pods.list(&ListParams::default()).await?.items;
            ensure!(pods.len() == 3, "{} pods", pods.len());
            Ok(())
        });
        made.await.unwrap();
        let metrics = format!("http://{}/metrics", cluster.agent.address("http"));
        let metrics = http::get(&metrics).await.unwrap().body;
        assert!(
            metrics.contains("nvca_queue_message_processed_total{nvca_nca_id=\"n\""),
            "{metrics}"
        );
    });
}
