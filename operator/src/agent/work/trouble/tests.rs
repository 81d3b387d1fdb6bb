//! Pods in, findings out.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

const CREATED: &str = "2026-01-01T00:00:00Z";
const PLACED: &str = "2026-01-01T00:01:00Z";
const STARTED: &str = "2026-01-01T00:02:00Z";
const LATER: &str = "2026-01-01T01:00:00Z";

fn at(text: &str) -> u64 {
    u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
}

fn found(spec: &Value, status: &Value) -> Vec<Finding> {
    let pod = json!({"metadata": {"name": "0-sr-1", "creationTimestamp": CREATED}, "spec": spec, "status": status});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    findings(&pod, &pod.status.clone().unwrap_or_default())
}

fn on_a_node() -> Value {
    json!({"nodeName": "n", "containers": [], "restartPolicy": "Always"})
}

fn condition(kind: &str, status: &str, at: &str) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": at})
}

fn container(name: &str, state: &Value, restarts: i32) -> Value {
    let ready = state.get("running").is_some_and(|running| running["ready"] == true);
    json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "too much"}}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "its words"}})
}

/// The first finding, without its text.
fn first(findings: &[Finding]) -> Option<(Trouble, u64)> {
    findings.first().map(|finding| (finding.trouble, finding.since))
}

#[test]
fn without_a_node_the_schedulers_last_word_starts_the_clock() {
    let none = json!({"containers": []});
    let since = |status: Value| first(&found(&none, &status));
    assert_eq!(since(json!({"phase": "Pending"})), Some((Trouble::NoNode, at(CREATED))));
    let mut refused = condition("PodScheduled", "False", LATER);
    refused["message"] = json!("0/4 nodes are available");
    let findings = found(&none, &json!({"phase": "Pending", "conditions": [refused]}));
    assert_eq!(first(&findings), Some((Trouble::NoNode, at(LATER))));
    assert_eq!(findings[0].text, "0/4 nodes are available");
    let placed = json!({"phase": "Pending", "conditions": [condition("PodScheduled", "True", PLACED)]});
    assert_eq!(
        since(placed),
        Some((Trouble::InitStuck, at(PLACED))),
        "its node says nothing"
    );
}

#[test]
fn an_image_that_does_not_come_counts_from_the_start_or_from_the_containers_turn() {
    let status = |inits: Value, mains: Value, conditions: Value| {
        json!({"phase": "Pending", "startTime": STARTED, "conditions": conditions, "initContainerStatuses": inits,
            "containerStatuses": mains})
    };
    let init = status(
        json!([container("init", &waiting("ErrImagePull"), 0)]),
        json!([]),
        json!([]),
    );
    let findings = found(&on_a_node(), &init);
    assert_eq!(first(&findings), Some((Trouble::ImagePull, at(STARTED))));
    assert_eq!(findings[0].text, "init container init: ErrImagePull: its words");
    let main = json!([container("inference", &waiting("ImagePullBackOff"), 0)]);
    let initialized = json!([condition("Initialized", "True", LATER)]);
    let findings = found(&on_a_node(), &status(json!([]), main, initialized));
    assert_eq!(first(&findings), Some((Trouble::ImagePull, at(LATER))));
}

#[test]
fn a_container_that_cannot_be_made_is_told_at_once_also_beside_others_that_run() {
    for reason in ["CreateContainerError", "CreateContainerConfigError"] {
        let status = json!({"phase": "Running", "startTime": STARTED, "conditions": [condition("Initialized", "True", LATER)],
            "containerStatuses": [container("utils", &json!({"running": {"ready": true}}), 0),
                container("inference", &waiting(reason), 0)]});
        let findings = found(&on_a_node(), &status);
        assert_eq!(first(&findings).unwrap().0, Trouble::CreateContainer);
        assert!(findings[0].text.contains("container inference") && findings[0].text.contains(reason));
    }
}

#[test]
fn three_restarts_are_a_loop_while_the_container_is_down() {
    let status = |state: &Value, restarts| {
        json!({"phase": "Running", "startTime": STARTED, "conditions": [condition("Initialized", "True", PLACED)],
            "containerStatuses": [container("inference", state, restarts)]})
    };
    let down = waiting("CrashLoopBackOff");
    let findings = found(&on_a_node(), &status(&down, 3));
    assert_eq!(first(&findings), Some((Trouble::Restarts, at(STARTED))));
    assert_eq!(
        findings[0].text,
        "container inference: CrashLoopBackOff: its words; restarted 3 times, last for OOMKilled (exit code 137): too much"
    );
    assert_eq!(found(&on_a_node(), &status(&down, 2)), []);
    assert_eq!(
        found(&on_a_node(), &status(&json!({"running": {}}), 9)),
        [],
        "it may have left the loop"
    );
}

#[test]
fn init_containers_may_loop_or_be_stuck() {
    let status = |restarts| {
        json!({"phase": "Pending", "startTime": STARTED, "conditions": [condition("Initialized", "False", STARTED)],
            "initContainerStatuses": [container("init", &waiting("CrashLoopBackOff"), restarts)],
            "containerStatuses": [container("inference", &waiting("PodInitializing"), 0)]})
    };
    let troubles = |status: &Value| -> Vec<_> { found(&on_a_node(), status).iter().map(|it| it.trouble).collect() };
    assert_eq!(troubles(&status(3)), [Trouble::InitRestarts, Trouble::InitStuck]);
    assert_eq!(troubles(&status(0)), [Trouble::InitStuck]);
    let words = &found(&on_a_node(), &status(0))[0].text;
    assert!(words.starts_with("init container init: CrashLoopBackOff"), "{words}");
}

fn unready(restart: &str, since: &str, states: &[Value]) -> Vec<Finding> {
    let spec = json!({"nodeName": "n", "containers": [], "restartPolicy": restart});
    let containers: Vec<_> = states.iter().map(|state| container("utils", state, 0)).collect();
    let status = json!({"phase": "Running", "startTime": STARTED, "containerStatuses": containers, "conditions": [
        condition("Initialized", "True", STARTED), condition("ContainersReady", "False", since),
        condition("Ready", "False", since)]});
    found(&spec, &status)
}

#[test]
fn a_pod_that_was_never_ready_is_not_up_and_one_that_was_is_degraded() {
    let runs = [json!({"running": {}})];
    let findings = unready("Always", STARTED, &runs);
    assert_eq!(first(&findings), Some((Trouble::NotUp, at(STARTED))));
    assert_eq!(findings[0].text, "container utils: runs and is not ready");
    assert_eq!(
        first(&unready("Always", LATER, &runs)),
        Some((Trouble::Degraded, at(LATER)))
    );
}

#[test]
fn a_pod_whose_node_does_not_answer_is_degraded_although_its_containers_were_ready() {
    // As the control plane leaves it where the pod tolerates a node that is not ready.
    let lost = |ready: &str, containers: &str| {
        let mut condition_ready = condition("Ready", ready, LATER);
        condition_ready["reason"] = json!("NodeNotReady");
        found(
            &on_a_node(),
            &json!({"phase": "Running", "startTime": STARTED,
                "containerStatuses": [container("utils", &json!({"running": {"ready": true}}), 0)],
                "conditions": [condition("Initialized", "True", STARTED), condition_ready,
                    condition("ContainersReady", containers, STARTED)]}),
        )
    };
    for ready in ["False", "Unknown"] {
        let findings = lost(ready, "True");
        assert_eq!(first(&findings), Some((Trouble::Degraded, at(LATER))), "{ready}");
        assert!(
            findings[0].text.ends_with("its node does not answer NodeNotReady"),
            "{findings:?}"
        );
    }
    assert_eq!(lost("True", "True"), []);
}

#[test]
fn of_a_pod_that_is_not_restarted_a_failed_container_counts_at_once_and_a_finished_one_not_at_all() {
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error"}});
    let findings = unready("Never", LATER, &[ended(1), json!({"running": {"ready": true}})]);
    assert_eq!(first(&findings), Some((Trouble::Degraded, 0)));
    assert_eq!(findings[0].text, "container utils: Error (exit code 1)");
    assert_eq!(
        unready("Never", LATER, &[ended(0), json!({"running": {"ready": true}})]),
        []
    );
}

#[test]
fn a_failed_pod_says_which_container_failed() {
    let status = json!({"phase": "Failed", "containerStatuses": [
        container("task", &json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "no data\n"}}), 0),
        container("utils", &json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), 0)]});
    let status: PodStatus = serde_json::from_value(status).unwrap();
    assert_eq!(failure(&status), "container task: Error (exit code 3): no data");
    let status = json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"});
    let status: PodStatus = serde_json::from_value(status).unwrap();
    assert_eq!(failure(&status), "Evicted: the node was low on memory");
}

#[test]
fn what_a_container_says_is_cut() {
    let long = json!({"waiting": {"reason": "ErrImagePull", "message": "x".repeat(9_000)}});
    let status = json!({"phase": "Pending", "startTime": STARTED, "containerStatuses": [container("a", &long, 0)]});
    let findings = found(&on_a_node(), &status);
    assert!(findings[0].text.len() < 1_100, "{}", findings[0].text.len());
}

#[test]
fn init_containers_that_begin_anew_have_their_time_anew() {
    let status = json!({"phase": "Pending", "startTime": STARTED, "conditions": [condition("Initialized", "False", LATER)],
        "initContainerStatuses": [container("init", &waiting("ErrImagePull"), 3)]});
    let found = found(&on_a_node(), &status);
    let expected = [Trouble::ImagePull, Trouble::InitRestarts, Trouble::InitStuck];
    assert_eq!(found.iter().map(|it| it.trouble).collect::<Vec<_>>(), expected);
    assert!(found.iter().all(|it| it.since == at(LATER)), "{found:?}");
}
