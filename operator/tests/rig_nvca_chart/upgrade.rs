//! `helm upgrade --reuse-values` from a chart that knew less.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, in_rig},
    kit::{VALUES, chart},
};

/// This chart as it was when it had only the page's keys.
fn older_chart(cluster: &Cluster) -> String {
    let older = cluster.dir.path().join("older");
    cluster.tools.shell(&format!(
        "cp -r CHART {0}; rm {0}/values.yaml; cp {VALUES} {0}/values.yaml",
        older.display()
    ));
    let about = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    assert!(about.contains("\nversion: 0.1.0"), "{about}");
    fs::write(
        older.join("Chart.yaml"),
        about.replace("\nversion: 0.1.0", "\nversion: 0.0.1"),
    )
    .unwrap();
    older.display().to_string()
}

#[test]
fn rig_nvca_chart_upgrades_with_values_of_a_chart_that_lacked_the_newer_keys() {
    in_rig(
        "upgrade::rig_nvca_chart_upgrades_with_values_of_a_chart_that_lacked_the_newer_keys",
        async |cluster| {
            let older = older_chart(cluster);
            let command = cluster.install_command("").replace("CHART", &older);
            cluster.tools.shell(&command);
            let (_, ids) = cluster.registered().await;
            cluster
                .tools
                .shell("helm upgrade nvca-operator CHART -n nvca-operator --reuse-values --wait --timeout 10m");
            let list = cluster.tools.shell("helm list -n nvca-operator");
            assert!(
                list.contains("helm-nvca-operator-0.1.0") && list.contains("deployed"),
                "{list}"
            );
            let values = cluster
                .tools
                .shell("helm get values nvca-operator -n nvca-operator --all -o json");
            let values: Value = serde_json::from_str(&values).unwrap();
            assert!(
                values["vault"].is_null() && values["cleanup"].is_null(),
                "nothing was lacking: {values}"
            );
            // What is not said is as if it were said by the newer chart.
            let now = cluster.tools.get("deployment nvca-operator -n nvca-operator")["spec"]["template"].clone();
            let annotations = &now["metadata"]["annotations"];
            assert_eq!(
                annotations["vault.hashicorp.com/role"], "nvca-operator",
                "{annotations}"
            );
            assert_eq!(
                now["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
                json!(3600)
            );
            assert_eq!(cluster.registration().await, ids);
            cluster
                .until("kubectl get pods -n nvca-operator", |pods| pods.contains("4/4"))
                .await;
            assert_eq!(cluster.registered().await.1, ids);
        },
    );
}
