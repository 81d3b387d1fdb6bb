//! What is compared between what is wanted and what SIS has.

use berth_sis::check::{NewCluster, new_cluster};
use serde_json::json;

use super::*;

fn wanted() -> CreateCluster {
    let cluster = NewCluster {
        cluster_name: "one".to_owned(),
        cluster_group_name: "group".to_owned(),
        nca_id: "nvcf-default".to_owned(),
        cloud_provider: "NCP".to_owned(),
        nvca_version: "2.52.1".to_owned(),
        region: "US-West-1".to_owned(),
        capabilities: vec!["DynamicGPUDiscovery".to_owned()],
        oauth_client_id: "nvca".to_owned(),
        ..NewCluster::default()
    };
    new_cluster(cluster).unwrap().1
}

fn found(change: &serde_json::Value) -> Cluster {
    let mut cluster = json!({"clusterId": "c", "clusterGroupId": "g", "clusterName": "one", "clusterGroupName": "group",
        "cloudProvider": "NCP", "region": "us-west-1", "oAuthClientId": "nvca",
        "capabilities": ["DynamicGPUDiscovery"], "gpus": [{"name": "H100"}]});
    cluster
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    Cluster::from_entry(cluster).unwrap()
}

#[test]
fn adopting_a_cluster_that_an_agent_serves_is_told_where_nothing_is_recorded() {
    let (account, cluster) = ("nvcf-default".parse().unwrap(), wanted());
    let wanted = Wanted { account, cluster };
    let told = |change: &serde_json::Value, known: Option<&Registration>| {
        let found = Found::of(&found(change), &wanted, known);
        let told: Vec<String> = found.differences.iter().map(ToString::to_string).collect();
        (found.how, told.join("; "))
    };
    let ready = json!({"status": "READY", "nvcaLastConnected": "2026-12-01T00:00:00Z"});
    let (how, text) = told(&ready, None);
    assert_eq!(how, How::Adopted);
    for words in [
        "a cluster named `one`",
        "READY, connected at 2026-12-01T00:00:00Z",
        "set another clusterName",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Nobody's: only made, or long silent.
    for status in ["NOT_READY", "UNHEALTHY"] {
        assert_eq!(told(&json!({"status": status}), None), (How::Adopted, String::new()));
    }
    let known = Found::of(&found(&ready), &wanted, None).registration;
    assert_eq!(told(&ready, Some(&known)), (How::Confirmed, String::new()));
}

#[test]
fn a_cluster_that_an_agent_serves_is_not_proposed_for_adoption() {
    let taken = |is_ready| {
        let (client_id, other) = ("nvca".to_owned(), "one".to_owned());
        RegisterError::ClientIdTaken {
            client_id,
            other,
            is_ready,
        }
        .to_string()
    };
    assert!(
        taken(false).contains("set clusterName to one to adopt it"),
        "{}",
        taken(false)
    );
    assert!(
        !taken(true).contains("adopt") && taken(true).contains("another oAuthClientId"),
        "{}",
        taken(true)
    );
    assert!(is_ready(&found(&json!({"status": "READY"}))) && !is_ready(&found(&json!({}))));
}

#[test]
fn what_sis_has_otherwise_is_told_with_both_values_and_a_way_out() {
    assert_eq!(differences(&wanted(), &found(&json!({}))), []);
    for (change, words) in [
        (
            json!({"cloudProvider": "AWS"}),
            "cloudProvider `AWS`, and `NCP` is wanted",
        ),
        (json!({"clusterGroupName": "other"}), "clusterGroupName `other`"),
        (
            json!({"capabilities": null}),
            "gpus `list: H100`, and `DynamicGPUDiscovery by the agent`",
        ),
        (json!({"region": null}), "region ``, and `us-west-1`"),
        (
            json!({"oAuthClientId": null}),
            "SIS will refuse the agent's token, whose subject is `nvca`",
        ),
    ] {
        let told: Vec<String> = differences(&wanted(), &found(&change))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
}
