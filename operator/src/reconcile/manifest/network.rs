//! What functions may reach, and who may reach them: ours, and the user's from a ConfigMap of the chart.
//!
//! Only policies that the operator made are ever removed; those of others in the same namespace are theirs.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use thiserror::Error;

use super::object;
use crate::names;

/// Ports of a function's pods that monitoring reads.
const MONITORED: [u16; 7] = [8002, 8010, 8018, 8888, 10103, 18888, 19090];

/// Annotation of a policy that is the user's: it may stand for one of ours.
const CUSTOM: &str = "nvca-operator.nvcf.nvidia.io/custom-policy";

/// One entry of the user's ConfigMap cannot be used; the others can.
#[derive(Debug, Error)]
pub(in crate::reconcile) enum PolicyError {
    #[error("`{key}` is no NetworkPolicy: {why}")]
    Unreadable { key: String, why: String },
    #[error("`{key}` has no metadata.name")]
    Nameless { key: String },
}

/// The policies that the ConfigMap `nvcf-custom-network-policies` has, and what is wrong with the others.
pub(in crate::reconcile) fn custom(data: &BTreeMap<String, String>) -> (Vec<NetworkPolicy>, Vec<PolicyError>) {
    let (mut policies, mut errors) = (Vec::new(), Vec::new());
    for (key, text) in data {
        match serde_saphyr::from_str::<Value>(text)
            .map_err(|error| error.to_string())
            .and_then(|value| {
                if value["kind"] != "NetworkPolicy" {
                    return Err(format!("its kind is {}", value["kind"]));
                }
                serde_json::from_value::<NetworkPolicy>(value).map_err(|error| error.to_string())
            }) {
            Ok(policy) if policy.metadata.name.is_none() => errors.push(PolicyError::Nameless { key: key.clone() }),
            Ok(policy) => policies.push(policy),
            Err(why) => errors.push(PolicyError::Unreadable { key: key.clone(), why }),
        }
    }
    (policies, errors)
}

/// Whether an object was made of an entry of the user's ConfigMap.
pub(in crate::reconcile) fn is_custom(object: &Value) -> bool {
    object["metadata"]["annotations"][CUSTOM] == "true"
}

pub(super) fn all(cluster: &[String], custom: &[NetworkPolicy]) -> Vec<Value> {
    let everyone = json!({});
    let ports = |ports: &[u16]| -> Vec<Value> {
        ports
            .iter()
            .map(|port| json!({"port": port, "protocol": "TCP"}))
            .collect()
    };
    let dns = json!({
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    });
    // An exception must be of its block's family.
    let (six, four): (Vec<&String>, Vec<&String>) = cluster.iter().partition(|cidr| cidr.contains(':'));
    let mut blocks = vec![json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": four}})];
    if !six.is_empty() {
        blocks.push(json!({"ipBlock": {"cidr": "::/0", "except": six}}));
    }
    let internet = json!({"to": blocks});
    let monitoring = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    let dcgm = json!({"matchLabels": {"nvca.nvcf.nvidia.io/dcgm-metrics-present": "true"}});
    let mut policies = vec![
        policy(
            "allow-egress-internet-no-internal-no-api",
            &everyone,
            "egress",
            json!([internet, dns]),
        ),
        policy(
            "allow-egress-intra-namespace",
            &everyone,
            "egress",
            json!([{"to": [{"podSelector": {}}]}]),
        ),
        policy(
            "allow-ingress-monitoring",
            &everyone,
            "ingress",
            json!([{"from": monitoring, "ports": ports(&MONITORED)}]),
        ),
        policy(
            "allow-ingress-monitoring-dcgm",
            &dcgm,
            "ingress",
            json!([{"from": monitoring, "ports": ports(&[9400])}]),
        ),
    ];
    for policy in custom {
        // It was read from YAML a moment ago.
        let Ok(mut value) = serde_json::to_value(policy) else {
            continue;
        };
        value["apiVersion"] = json!("networking.k8s.io/v1");
        value["kind"] = json!("NetworkPolicy");
        value["metadata"]["namespace"] = json!(names::BACKEND_NAMESPACE);
        value["metadata"]["annotations"][CUSTOM] = json!("true");
        policies.retain(|ours| ours["metadata"]["name"] != value["metadata"]["name"]);
        policies.push(value);
    }
    policies
}

fn policy(name: &str, pods: &Value, direction: &str, rules: Value) -> Value {
    let mut policy = object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        Some(names::BACKEND_NAMESPACE),
        name,
    );
    let kind = if direction == "egress" { "Egress" } else { "Ingress" };
    policy["spec"] = json!({"podSelector": pods, "policyTypes": [kind]});
    policy["spec"][direction] = rules;
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_is_that_of_each_family_without_the_clusters_networks_of_it() {
        let to = |cluster: &[&str]| {
            let cluster: Vec<String> = cluster.iter().map(ToString::to_string).collect();
            all(&cluster, &[])[0]["spec"]["egress"][0]["to"].clone()
        };
        let four = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}});
        assert_eq!(to(&["10.0.0.0/8"]), json!([four]));
        let six = json!({"ipBlock": {"cidr": "::/0", "except": ["fd00::/8", "2001:db8::/32"]}});
        assert_eq!(to(&["fd00::/8", "10.0.0.0/8", "2001:db8::/32"]), json!([four, six]));
    }

    #[test]
    fn a_bad_policy_of_the_user_is_told_and_the_others_are_used() {
        let good =
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mine}\nspec: {podSelector: {}}\n";
        let data = [
            ("good", good),
            ("kind", "kind: Pod"),
            ("nameless", "kind: NetworkPolicy\nspec: {podSelector: {}}"),
            ("text", "kind: NetworkPolicy\nspec: nothing"),
            ("yaml", "a: [b"),
        ];
        let data = data.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let (policies, errors) = custom(&data);
        assert_eq!(policies.len(), 1);
        assert_eq!(errors.len(), 4, "{errors:?}");
        let all = all(&["10.0.0.0/8".to_owned()], &policies);
        let mine = all.iter().find(|it| it["metadata"]["name"] == "mine").unwrap();
        assert_eq!(mine["metadata"]["namespace"], "nvcf-backend");
    }

    #[test]
    fn a_policy_of_the_user_replaces_ours_of_that_name() {
        let text = "kind: NetworkPolicy\nmetadata: {name: allow-ingress-monitoring}\nspec: {podSelector: {}}";
        let (policies, _) = custom(&[("a".to_owned(), text.to_owned())].into());
        let all = all(&[], &policies);
        let named = all
            .iter()
            .filter(|it| it["metadata"]["name"] == "allow-ingress-monitoring");
        assert_eq!(named.count(), 1);
    }
}
