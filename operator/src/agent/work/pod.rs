//! What a pod's state means for its instance. Pure.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt as _;

use super::cause::Cause;

/// A pod as far as its instance is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its name, which is the instance's id.
    pub(crate) instance: String,
    pub(crate) state: PodState,
    /// Of its node and of itself; empty while there are none.
    pub(crate) ips: [String; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodState {
    /// It has no node since then, unix milliseconds.
    Unplaced(u64),
    /// It has a node and is not ready.
    Starting,
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
            ips,
        }
    }
}

fn state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    match (phase, status) {
        ("Succeeded", _) => return PodState::Over(Cause::Succeeded),
        ("Failed", Some(status)) => {
            let reason = text(status.reason.as_ref());
            let message = format!("{reason}: {}", text(status.message.as_ref()));
            return PodState::Over(if reason == "UnexpectedAdmissionError" {
                Cause::Admission(message)
            } else {
                Cause::Failed(message)
            });
        }
        _ => {}
    }
    if let Some(since) = unplaced_since(pod) {
        return PodState::Unplaced(since);
    }
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let is_ready = statuses.into_iter().flatten().all(|container| container.ready);
    if phase == "Running" && is_ready && condition(pod, "Ready").is_none_or(|(value, _)| value == "True") {
        PodState::Running
    } else {
        PodState::Starting
    }
}

/// The scheduler's word counts; before it has said anything, the pod's age.
fn unplaced_since(pod: &Pod) -> Option<u64> {
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let has_started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
    if has_node || has_started {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref();
    match condition(pod, "PodScheduled") {
        Some(("True", _)) => None,
        Some((_, since)) => Some(millis(since.or(created))),
        None => Some(millis(created)),
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, Option<&'a Time>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, found.last_transition_time.as_ref()))
}

/// Without a time it never times out.
fn millis(time: Option<&Time>) -> u64 {
    time.map_or(u64::MAX, |time| {
        u64::try_from(time.0.as_millisecond()).unwrap_or_default()
    })
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
    fn without_a_node_the_schedulers_last_word_starts_the_clock() {
        let at =
            |text: &str| u64::try_from(text.parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_millisecond()).unwrap();
        assert_eq!(
            seen(None, &json!({"phase": "Pending"})).state,
            PodState::Unplaced(at(CREATED))
        );
        let refused = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:05:00Z"}]});
        assert_eq!(
            seen(None, &refused).state,
            PodState::Unplaced(at("2026-01-01T00:05:00Z"))
        );
        assert_eq!(seen(Some("n"), &json!({"phase": "Pending"})).state, PodState::Starting);
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
        assert_eq!(
            (up.state, up.ips),
            (PodState::Running, ["1.1.1.1".to_owned(), "2.2.2.2".to_owned()])
        );
        assert_eq!(seen(Some("n"), &running(false)).state, PodState::Starting);
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
}
