//! Who is grouped, and how. What needs owners that live is in `tests/rig_kai`.

use serde_json::{Value, json};

use super::*;

fn pod(more: impl Into<Value>) -> Pod {
    let more: Value = more.into();
    let mut pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {}, "annotations": {}},
        "spec": {"schedulerName": "kai-scheduler", "containers": []}});
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn owner(kind: &str, labels: impl Into<Value>) -> Owner {
    Owner {
        types: TypeMeta {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
        },
        metadata: serde_json::from_value(json!({"name": "o", "uid": "ou", "labels": labels.into()})).unwrap(),
    }
}

#[test]
fn what_others_group_is_left_alone() {
    assert!(is_ours(&pod(json!({}))));
    assert!(!is_ours(&pod(
        json!({"annotations": {"kai.scheduler/skip-podgrouper": "true"}})
    )));
    assert!(is_ours(&pod(
        json!({"annotations": {"kai.scheduler/skip-podgrouper": "false"}})
    )));
    assert!(
        !is_ours(&pod(json!({"annotations": {"pod-group-name": "mine"}}))),
        "nothing owns it"
    );
    let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "ru"}]);
    assert!(is_ours(&pod(
        json!({"annotations": {"pod-group-name": "mine"}, "ownerReferences": owners})
    )));
    let mut other = pod(json!({}));
    other.spec.as_mut().unwrap().scheduler_name = Some("default-scheduler".to_owned());
    assert!(!is_ours(&other));
}

#[test]
fn the_owners_queue_and_preemptibility_win_and_nonsense_is_ignored() {
    let pod =
        pod(json!({"labels": {"kai.scheduler/queue": "pods", "kai.scheduler/preemptibility": "non-preemptible"}}));
    let made = group(
        &pod,
        &[owner("StatefulSet", json!({"kai.scheduler/queue": "owners"}))],
        "train".to_owned(),
    );
    assert_eq!(
        (made.spec.queue.as_str(), made.spec.preemptibility.as_str()),
        ("owners", "non-preemptible")
    );
    let made = group(
        &pod,
        &[owner("StatefulSet", json!({"kai.scheduler/preemptibility": "perhaps"}))],
        String::new(),
    );
    assert_eq!(
        (made.spec.queue.as_str(), made.spec.preemptibility.as_str()),
        ("pods", "")
    );
}

#[test]
fn a_job_gets_a_group_for_each_pod_named_with_the_jobs_uid() {
    let made = group(&pod(json!({})), &[owner("Job", json!({}))], "train".to_owned());
    assert_eq!(made.metadata.name.as_deref(), Some("pg-p-ou"));
    assert_eq!(made.metadata.owner_references.unwrap()[0].kind, "Job");
}
