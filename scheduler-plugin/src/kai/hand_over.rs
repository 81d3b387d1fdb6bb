//! Gives a pod to KAI: as if Berth were not there. Must not touch a pod that somebody bound meanwhile, since that would take from
//! it the group by which KAI accounts it.

use berth_runtime::kubernetes::{ApiError, within};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use super::{
    jobs::{Ended, REQUEST},
    objects,
    pod::KaiPod,
};

/// Changes of the pod by others that are waited out in one turn.
const ATTEMPTS: usize = 3;

/// What the pod is now is read, and nothing but that is changed.
pub(super) async fn hand_over(api: &Api<Pod>, pod: &KaiPod) -> Result<Ended, ApiError> {
    for _ in 0..ATTEMPTS {
        let found = within(REQUEST, api.get_opt(&pod.pod.name)).await?;
        let is_it = |found: &Pod| found.metadata.uid.as_deref() == Some(pod.pod.uid.as_str());
        let Some(found) = found.filter(is_it) else {
            // It is gone, and needs nothing any more.
            return Ok(Ended::HandedOver);
        };
        if found.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            return Ok(Ended::Bound);
        }
        let patch = Patch::Merge(objects::hand_over(pod, found.metadata.resource_version.as_deref()));
        match within(REQUEST, api.patch(&pod.pod.name, &PatchParams::default(), &patch)).await {
            Ok(_) => return Ok(Ended::HandedOver),
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Ended::Again)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{kai::pod::tests::pod, testing::api_double};

    fn marked() -> KaiPod {
        let pod = pod(|pod| pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!(""));
        KaiPod::of(&pod).unwrap()
    }

    fn at(version: &str, node: Option<&str>) -> Value {
        let pod = pod(|pod| {
            pod["metadata"]["resourceVersion"] = json!(version);
            pod["spec"]["nodeName"] = json!(node);
        });
        json!(pod)
    }

    fn conflict() -> Value {
        api_double::refused(409, "Conflict")
    }

    async fn hand_over_to(answers: impl IntoIterator<Item = (u16, Value)>) -> (Ended, Vec<Value>) {
        let (client, double) = api_double::client(answers);
        let api = Api::namespaced(client, "nvcf-backend");
        let ended = hand_over(&api, &marked()).await.unwrap();
        (ended, double.patches())
    }

    #[tokio::test]
    async fn a_pod_that_is_bound_meanwhile_keeps_what_it_carries() {
        let bound = [(200, at("1", None)), (409, conflict()), (200, at("2", Some("n")))];
        let (ended, patches) = hand_over_to(bound).await;
        assert_eq!(ended, Ended::Bound);
        assert_eq!(
            patches[0]["metadata"]["resourceVersion"], "1",
            "it would not be a conflict else"
        );
    }

    #[tokio::test]
    async fn a_pod_that_changes_otherwise_is_handed_over_as_it_is_then() {
        let changed = [
            (200, at("1", None)),
            (409, conflict()),
            (200, at("2", None)),
            (200, at("3", None)),
        ];
        let (ended, patches) = hand_over_to(changed).await;
        assert_eq!((ended, patches.len()), (Ended::HandedOver, 2));
        assert_eq!(patches[1]["metadata"]["resourceVersion"], "2");
        assert_eq!(
            patches[1]["metadata"]["annotations"]["gpu.berth.dev/kai-bind"],
            Value::Null
        );
    }

    #[tokio::test]
    async fn a_pod_that_never_holds_still_has_its_turn_again_and_one_that_is_gone_needs_nothing() {
        let restless = [(200, at("1", None)), (409, conflict())];
        let (ended, _) = hand_over_to(restless.iter().cycle().take(2 * ATTEMPTS).cloned()).await;
        assert_eq!(ended, Ended::Again);
        let gone = api_double::refused(404, "NotFound");
        assert_eq!(hand_over_to([(404, gone)]).await.0, Ended::HandedOver);
        let mut another = at("1", None);
        another["metadata"]["uid"] = json!("another");
        assert_eq!(hand_over_to([(200, another)]).await, (Ended::HandedOver, Vec::new()));
    }
}
