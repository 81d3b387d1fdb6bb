//! The release at work, with functions that run, are asked for, end and fail.

use anyhow::{Context as _, ensure};
use berth_testkit::{Program, eventually};
use serde_json::{Value, json};

use super::{AGENT, OPERATOR, clusters, is_copied, pull_secret};
use crate::{
    cluster::{Cluster, SOON, in_rig},
    system::{Function, OUTAGE, System},
    work::{Customer, route_webhook},
};

/// The release at work.
async fn up(cluster: &mut Cluster) -> System {
    let mut system = System::new();
    pull_secret(cluster, "one");
    cluster.install("--set imagePullSecrets[0].name=pull");
    let place = cluster.lasting("nvca-operator", OPERATOR).await;
    cluster.bootstrap(&place).await;
    system.start_operator(cluster, &place).await;
    cluster.until_there("deployment/nvca -n nvca-system").await;
    let agent = cluster.lasting("nvca-system", AGENT).await;
    cluster.inject(&agent).await;
    system.start_agent(cluster, &agent).await;
    route_webhook(cluster).await;
    system.is_well().await;
    system
}

/// Changes what the chart says of the cluster: one more capability.
fn edit_chart(cluster: &Cluster, capability: &str) {
    let map = cluster.tools.get("cm nvcfbackend-self-managed -n nvca-operator");
    let mut dto: Value = serde_saphyr::from_str(map["data"]["cluster-dto.yaml"].as_str().unwrap()).unwrap();
    dto["capabilities"].as_array_mut().unwrap().push(json!(capability));
    let patch = json!({"data": {"cluster-dto.yaml": dto.to_string()}});
    let path = cluster.dir.path().join("patch.json");
    std::fs::write(&path, patch.to_string()).unwrap();
    cluster.tools.shell(&format!(
        "kubectl patch cm nvcfbackend-self-managed -n nvca-operator --type=merge --patch-file {}",
        path.display()
    ));
}

/// Right before SIS is away: one function is to end, one fails, one is asked for.
async fn sis_is_away(cluster: &mut Cluster, system: &System, customer: &Customer) -> Function {
    let (ended, _) = cluster.runs(customer).await;
    let (failed, _) = cluster.runs(customer).await;
    customer.end(cluster, &ended.instance).await.unwrap();
    let asked = customer.ask(cluster).await.unwrap();
    cluster.sis.kill();
    let failed_pod = format!(
        "kubectl patch pod {} -n nvcf-backend --subresource=status --type=merge -p \
         '{{\"status\":{{\"phase\":\"Failed\",\"message\":\"it broke\"}}}}'",
        failed.instance
    );
    cluster.tools.shell(&failed_pod);
    system.tells("agent", "SIS cannot be reached").await;
    system.outlives().await;
    cluster.start_sis_again().await;
    system
        .recovers("SIS was away: both ends are told", async || {
            cluster.is_told(&ended, "terminated").await?;
            cluster.is_told(&failed, "terminated").await
        })
        .await;
    let started = system
        .recovers("what was asked starts", async || cluster.starts(asked.clone()).await)
        .await;
    for function in [&ended, &failed] {
        assert_eq!(system.ends_told(function), 1, "an end is told once");
    }
    system.is_well().await;
    started
}

/// Right before the API server is away: the chart is edited, objects are deleted, a secret is rotated, functions are asked for and end.
async fn api_is_away(cluster: &mut Cluster, system: &System, customer: &Customer) {
    let (ended, _) = cluster.runs(customer).await;
    let ids = cluster.registration().await;
    // Its pods stay, and with them what they hold.
    cluster
        .tools
        .shell("kubectl delete deployment nvca -n nvca-system --cascade=orphan");
    pull_secret(cluster, "two");
    edit_chart(cluster, "Outage");
    cluster
        .tools
        .shell("kubectl delete cm nvca-cluster-registration -n nvca-operator");
    cluster.rig.part("kube-apiserver").unwrap().kill();
    let asked = customer.ask(cluster).await.unwrap();
    customer.end(cluster, &ended.instance).await.unwrap();
    let beat = async || -> anyhow::Result<u64> {
        let state = cluster.sis_state().await?;
        state["beats"][&ids.0]["at_unix_ms"].as_u64().context("no heartbeat")
    };
    let first = beat().await.unwrap();
    system.outlives().await;
    assert!(beat().await.unwrap() > first, "SIS goes on hearing of the cluster");
    cluster.rig.part("kube-apiserver").unwrap().restart().unwrap();
    cluster.rig.wait_ready().await.unwrap();
    system
        .recovers("the API server was away: the function ended and was told", async || {
            cluster.is_told(&ended, "terminated").await
        })
        .await;
    system
        .recovers("what was asked starts", async || cluster.starts(asked.clone()).await)
        .await;
    system
        .recovers("the objects are as planned", async || {
            for namespace in ["nvca-system", "nvcf-backend"] {
                is_copied(cluster, namespace)?;
            }
            let command = "kubectl get deployment nvca -n nvca-system -o name && kubectl get cm -n nvca-system -o yaml";
            let told = cluster.tools.try_shell(command).map_err(anyhow::Error::msg)?;
            ensure!(
                told.contains("Outage"),
                "the agent's configuration is the old one: {told}"
            );
            Ok(())
        })
        .await;
    // What was known stayed known, and no program said that it is not ready.
    for program in ["operator", "agent", "mirror", "watch"] {
        system.logs(program, "a watch broke").await;
    }
    assert_eq!(cluster.registration().await, ids);
    assert_eq!(system.ends_told(&ended), 1, "its end is told once");
    system.is_well().await;
}

/// OpenBao is away, and SIS, which was restarted, has no keys to check tokens with: that is no refusal.
async fn openbao_is_away(cluster: &mut Cluster, system: &System, customer: &Customer) {
    let asked = customer.ask(cluster).await.unwrap();
    cluster.rig.part("openbao").unwrap().pause();
    cluster.sis.kill();
    cluster.start_sis_again().await;
    system.tells("agent", "SIS could not check the token").await;
    system.outlives().await;
    cluster.rig.part("openbao").unwrap().resume();
    system
        .recovers("OpenBao was away: what was asked starts", async || {
            cluster.starts(asked.clone()).await
        })
        .await;
    system.is_well().await;
}

#[test]
fn rig_nvca_chart_at_work_loses_nothing_although_each_part_is_away_for_a_minute() {
    in_rig(
        "outage::work::rig_nvca_chart_at_work_loses_nothing_although_each_part_is_away_for_a_minute",
        async |cluster| {
            let mut system = up(cluster).await;
            let customer = Customer::new().await.unwrap();
            let (lasting, pod) = cluster.runs(&customer).await;
            let started = sis_is_away(cluster, &system, &customer).await;
            customer.end(cluster, &started.instance).await.unwrap();
            api_is_away(cluster, &system, &customer).await;
            openbao_is_away(cluster, &system, &customer).await;

            // Whoever ran on ran on, and there is one pod for each that is alive.
            let pods = cluster.function_pods().await.unwrap();
            assert_eq!(pods.get(&lasting.instance), Some(&pod), "{pods:?}");
            let state = cluster.sis_state().await.unwrap();
            assert_eq!(clusters(&state), 1);
            let requests = state["requests"].as_object().unwrap().values();
            let told = requests.flat_map(|it| it["instances"].as_object().cloned().unwrap_or_default());
            let mut alive: Vec<_> = told
                .filter(|(_, state)| state != "terminated")
                .map(|(name, _)| name)
                .collect();
            alive.sort();
            assert_eq!(pods.into_keys().collect::<Vec<_>>(), alive);

            // The clean-up, whose operator and agent died, and the API server is away in the middle of it.
            for name in ["operator", "agent"] {
                system.kill(name);
            }
            cluster.nobody_comes_back();
            let cleanup = Program::new("nvca-operator-cleanup", "berth-operator")
                .arg("--kubeconfig", cluster.rig.kubeconfig().to_str().unwrap())
                .arg("--drain-timeout", "25s");
            let mut cleanup = cleanup.spawn().unwrap();
            let begun = eventually(SOON, async || {
                let log = cleanup.stderr();
                ensure!(log.contains("deleting the NVCFBackend"), "{log}");
                Ok(())
            });
            begun.await.unwrap();
            cluster.rig.part("kube-apiserver").unwrap().pause();
            system.outlives().await;
            cluster.rig.part("kube-apiserver").unwrap().resume();
            let status = cleanup.wait(OUTAGE * 3).await.unwrap();
            assert!(status.success(), "{}", cleanup.stderr());
            let left = cluster.tools.shell("kubectl get namespaces -o name");
            assert!(
                !left.contains("nvca-system") && !left.contains("nvcf-backend"),
                "{left}"
            );
        },
    );
}
