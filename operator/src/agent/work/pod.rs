//! What a pod's state means for its instance. Pure.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt as _;

use super::{
    cause::Cause,
    trouble::{self, Finding, condition, millis},
};

/// A pod as far as its instance is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its name, which is the instance's id.
    pub(crate) instance: String,
    pub(crate) state: PodState,
    /// As the API server counts them.
    pub(crate) version: String,
    /// Of its node and of itself; empty while there are none.
    pub(crate) ips: [String; 2],
    /// When its node took it, unix milliseconds.
    pub(crate) started: Option<u64>,
    /// It is deleted, and its node has to be done with it by then, unix milliseconds.
    pub(crate) gone_by: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodState {
    /// It does not run; why, as far as it shows.
    Waiting(Vec<Finding>),
    Running,
    Over(Cause),
}

impl Seen {
    pub(crate) fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let ips = [status.host_ip.clone(), status.pod_ip.clone()].map(Option::unwrap_or_default);
        Self {
            instance: pod.name_any(),
            state: state(pod),
            version: pod.resource_version().unwrap_or_default(),
            ips,
            started: status.start_time.as_ref().map(millis),
            gone_by: pod.metadata.deletion_timestamp.as_ref().map(millis),
        }
    }
}

fn state(pod: &Pod) -> PodState {
    let Some(status) = &pod.status else {
        return PodState::Waiting(trouble::findings(pod, &PodStatus::default()));
    };
    match status.phase.as_deref() {
        Some("Succeeded") => return PodState::Over(Cause::Succeeded),
        Some("Failed") => {
            let words = trouble::failure(status);
            return PodState::Over(if status.reason.as_deref() == Some("UnexpectedAdmissionError") {
                Cause::Admission(words)
            } else {
                Cause::Failed(words)
            });
        }
        _ => {}
    }
    if let Some(cause) = trouble::done(pod, status) {
        return PodState::Over(cause);
    }
    let containers = status.container_statuses.iter().flatten();
    let is_ready = containers.into_iter().all(|container| container.ready)
        && condition(status, "Ready").is_none_or(|ready| ready.status == "True");
    if status.phase.as_deref() == Some("Running") && is_ready {
        PodState::Running
    } else {
        PodState::Waiting(trouble::findings(pod, status))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CREATED: &str = "2026-01-01T00:00:00Z";

    fn seen(node: Option<&str>, status: &Value) -> Seen {
        let pod = json!({"metadata": {"name": "0-sr-1", "creationTimestamp": CREATED},
            "spec": {"nodeName": node, "containers": []}, "status": status});
        Seen::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_runs_when_all_of_it_is_ready() {
        let running = |ready: bool| {
            json!({"phase": "Running", "hostIP": "1.1.1.1", "podIP": "2.2.2.2",
                "containerStatuses": [
                    {"name": "a", "ready": true, "image": "", "imageID": "", "restartCount": 0},
                    {"name": "b", "ready": ready, "image": "", "imageID": "", "restartCount": 0}]})
        };
        let up = seen(Some("n"), &running(true));
        assert_eq!(up.started, None);
        let mut started = running(true);
        started["startTime"] = json!("2026-01-01T00:00:01Z");
        let created: u64 = 1_767_225_600_000;
        assert_eq!(seen(Some("n"), &started).started, Some(created + 1000));
        assert_eq!(
            (up.state, up.ips),
            (PodState::Running, ["1.1.1.1".to_owned(), "2.2.2.2".to_owned()])
        );
        assert!(matches!(seen(Some("n"), &running(false)).state, PodState::Waiting(_)));
    }

    #[test]
    fn a_failed_pod_says_why() {
        let failed = |reason: &str| json!({"phase": "Failed", "reason": reason, "message": "no device"});
        let state = seen(Some("n"), &failed("UnexpectedAdmissionError")).state;
        assert_eq!(
            state,
            PodState::Over(Cause::Admission("UnexpectedAdmissionError: no device".to_owned()))
        );
        let state = seen(Some("n"), &failed("Evicted")).state;
        assert_eq!(state, PodState::Over(Cause::Failed("Evicted: no device".to_owned())));
        assert_eq!(
            seen(Some("n"), &json!({"phase": "Succeeded"})).state,
            PodState::Over(Cause::Succeeded)
        );
    }

    #[test]
    fn a_task_is_done_when_all_but_who_serves_its_secrets_are() {
        let task = |restart: &str, code: i32| {
            let ended = |name: &str, code: i32| {
                json!({"name": name, "ready": false, "image": "", "imageID": "", "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}})
            };
            let serves = json!({"name": "ess", "ready": true, "image": "", "imageID": "", "restartCount": 0});
            let pod = json!({"metadata": {"name": "0-sr-1", "creationTimestamp": CREATED},
                "spec": {"nodeName": "n", "restartPolicy": restart, "containers": []},
                "status": {"phase": "Running", "containerStatuses": [serves, ended("task", code), ended("utils", 0)]}});
            Seen::of(&serde_json::from_value(pod).unwrap()).state
        };
        assert_eq!(task("Never", 0), PodState::Over(Cause::Succeeded));
        assert!(matches!(task("Never", 1), PodState::Waiting(_)), "trouble of its own");
        assert!(matches!(task("Always", 0), PodState::Waiting(_)), "it starts again");
    }
}
