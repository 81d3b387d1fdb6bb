//! Each part that the release hangs on is away for a minute, at each step of the release's life. Nothing is lost, nothing is done
//! twice, no program is restarted, and everything goes on by itself.

mod birth;
mod work;

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::Cluster;

const OPERATOR: &str = "app.kubernetes.io/name=nvca-operator";
const AGENT: &str = "app.kubernetes.io/name=nvca";
const CREATE: &str = "POST /v1/accounts/nvcf-default/clusters";

/// A pull secret of the user's, in the operator's namespace.
fn pull_secret(cluster: &Cluster, password: &str) {
    cluster
        .tools
        .shell("kubectl create namespace nvca-operator --dry-run=client -o yaml | kubectl apply -f -");
    cluster.tools.shell(&format!(
        "kubectl create secret docker-registry pull --docker-server=registry.example --docker-username=u \
         --docker-password={password} --namespace=nvca-operator --dry-run=client -o yaml | kubectl apply -f -"
    ));
}

/// The copy in that namespace is the source's.
fn is_copied(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let get = |namespace: &str| {
        let command = format!("kubectl get secret pull -n {namespace} -o jsonpath='{{.data}}'");
        cluster.tools.try_shell(&command).map_err(anyhow::Error::msg)
    };
    ensure!(get(namespace)? == get("nvca-operator")?, "{namespace} has another one");
    Ok(())
}

fn clusters(state: &Value) -> usize {
    state["by_id"].as_object().map_or(0, serde_json::Map::len)
}
