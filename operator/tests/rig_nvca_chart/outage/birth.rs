//! From the installation to the end: what is away when something is done for the first time, and for the last.

use anyhow::ensure;

use super::{AGENT, CREATE, OPERATOR, clusters, is_copied, pull_secret};
use crate::{
    cluster::{Cluster, SOON, in_rig},
    pods::is_allowed,
    system::System,
    work::{Customer, route_webhook},
};

/// OpenBao, from the beginning: there is no token. Then the API server, while the operator makes everything for the first time.
async fn the_operator_starts(cluster: &mut Cluster, system: &mut System) {
    cluster.rig.part("openbao").unwrap().pause();
    pull_secret(cluster, "one");
    cluster.install("--set imagePullSecrets[0].name=pull");
    let place = cluster.lasting("nvca-operator", OPERATOR).await;
    system.renew_secrets(cluster, &place).await;
    system.start_operator(cluster, &place).await;
    let bootstrap = cluster.program(&place, "nvca-self-managed-bootstrap").await;
    let mut bootstrap = bootstrap.spawn().unwrap();
    system.tells("watch", "OpenBao's agent has not written it").await;
    system.logs("operator", "waiting for the registration").await;
    system.outlives().await;
    cluster.rig.part("openbao").unwrap().resume();
    let there = |what: &str| {
        let got = cluster.tools.try_shell(&format!("kubectl get {what}"));
        got.map(drop).map_err(anyhow::Error::msg)
    };
    let registration = "cm/nvca-cluster-registration -n nvca-operator";
    system
        .recovers("OpenBao was away: registered", async || there(registration))
        .await;

    cluster.rig.part("kube-apiserver").unwrap().pause();
    system.outlives().await;
    cluster.rig.part("kube-apiserver").unwrap().resume();
    system
        .recovers("the API server was away: everything is there", async || {
            for what in [
                "deployment/nvca",
                "service/nvca",
                "secret/nvca-webhook-tls-server-certs",
            ] {
                there(&format!("{what} -n nvca-system"))?;
            }
            is_copied(cluster, "nvca-system")?;
            is_copied(cluster, "nvcf-backend")
        })
        .await;
    assert!(bootstrap.wait(SOON).await.unwrap().success(), "{}", bootstrap.stderr());
    is_allowed(&bootstrap.stderr());
    assert_eq!(cluster.asked(CREATE).await, 1, "one creation, by whichever of the two");
}

/// OpenBao, and SIS even longer, while the agent registers. SIS hangs.
async fn the_agent_starts(cluster: &mut Cluster, system: &mut System) {
    let (id, _) = cluster.registration().await;
    cluster.rig.part("openbao").unwrap().pause();
    cluster.sis.signal("STOP").unwrap();
    let place = cluster.lasting("nvca-system", AGENT).await;
    system.renew_secrets(cluster, &place).await;
    system.start_agent(cluster, &place).await;
    system.tells("agent", "OpenBao's agent has not written it").await;
    system.outlives().await;
    cluster.rig.part("openbao").unwrap().resume();
    system.tells("agent", "SIS did not answer").await;
    cluster.sis.signal("CONT").unwrap();
    system
        .recovers("SIS was away: the agent is registered", async || {
            let state = cluster.sis_state().await?;
            let gpus = &state["by_id"][&id]["gpus"];
            ensure!(gpus[0]["name"] == "H100", "{gpus}");
            Ok(())
        })
        .await;
    system.is_well().await;
    assert_eq!(clusters(&cluster.sis_state().await.unwrap()), 1);
}

/// The API server, while everything is taken down.
async fn everything_goes(cluster: &mut Cluster, system: &System) {
    route_webhook(cluster).await;
    let customer = Customer::new().await.unwrap();
    let (function, _) = cluster.runs(&customer).await;
    cluster
        .tools
        .shell("kubectl delete nvcfbackends --all -n nvca-operator --wait=false");
    cluster.rig.part("kube-apiserver").unwrap().pause();
    system.outlives().await;
    cluster.rig.part("kube-apiserver").unwrap().resume();
    system
        .recovers("the API server was away: the function ended and was told", async || {
            cluster.is_told(&function, "terminated").await
        })
        .await;
    system
        .recovers("everything is gone", async || {
            let command = "kubectl get namespaces -o name; kubectl get nvcfbackends -A -o name";
            let left = cluster.tools.try_shell(command).map_err(anyhow::Error::msg)?;
            let ours = ["nvca-system", "nvcf-backend", "nvcfbackend."];
            ensure!(!ours.iter().any(|name| left.contains(name)), "{left}");
            Ok(())
        })
        .await;
    assert_eq!(system.ends_told(&function), 1, "its end is told once");
}

#[test]
fn rig_nvca_chart_comes_up_and_goes_although_each_part_is_away_for_a_minute() {
    in_rig(
        "outage::birth::rig_nvca_chart_comes_up_and_goes_although_each_part_is_away_for_a_minute",
        async |cluster| {
            let mut system = System::new();
            the_operator_starts(cluster, &mut system).await;
            let ids = cluster.registration().await;
            the_agent_starts(cluster, &mut system).await;
            everything_goes(cluster, &system).await;
            assert_eq!(cluster.registration().await, ids);
            assert_eq!(cluster.asked(CREATE).await, 1);
        },
    );
}
