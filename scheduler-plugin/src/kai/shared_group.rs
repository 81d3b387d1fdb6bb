//! Makes the group by which KAI accounts pods that came without one, and makes it so again where somebody deleted or changed it:
//! of a group that may be evicted KAI evicts what Berth bound.

use berth_runtime::kubernetes::{ApiError, within};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};

use super::{jobs::REQUEST, objects, pod::KaiPod};

/// How the group stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stood {
    AsMade,
    /// It was not there, and is now.
    Missing,
    /// It was changed, and is not any more.
    Changed,
}

/// See the module's text.
pub(super) async fn ensure(api: &Api<DynamicObject>, pod: &KaiPod) -> Result<Stood, ApiError> {
    let group = objects::pod_group(pod);
    match within(REQUEST, api.create(&PostParams::default(), &group)).await {
        Ok(_) => return Ok(Stood::Missing),
        Err(error) if error.is_conflict() => {}
        Err(error) => return Err(error),
    }
    let name = objects::group_name(pod);
    if objects::is_as_made(&within(REQUEST, api.get(&name)).await?) {
        return Ok(Stood::AsMade);
    }
    let patch = Patch::Merge(objects::pod_group_again(pod));
    within(REQUEST, api.patch(&name, &PatchParams::default(), &patch)).await?;
    Ok(Stood::Changed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{kai::pod::tests::pod, testing::api_double};

    async fn ensure_with(answers: impl IntoIterator<Item = (u16, Value)>) -> (Result<Stood, ApiError>, Vec<Value>) {
        let (client, double) = api_double::client(answers);
        let api = Api::namespaced_with(client, "nvcf-backend", &objects::pod_groups());
        let stood = ensure(&api, &KaiPod::of(&pod(|_| {})).unwrap()).await;
        (stood, double.patches())
    }

    fn exists() -> (u16, Value) {
        (409, api_double::refused(409, "AlreadyExists"))
    }

    fn made(change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let mut group = json!(objects::pod_group(&KaiPod::of(&pod(|_| {})).unwrap()));
        group["metadata"]["namespace"] = json!("nvcf-backend");
        change(&mut group);
        (200, group)
    }

    #[tokio::test]
    async fn a_group_is_made_where_there_is_none_and_left_alone_where_it_is_as_it_was_made() {
        let (stood, patches) = ensure_with([made(|_| {})]).await;
        assert_eq!((stood.unwrap(), patches), (Stood::Missing, Vec::new()));
        let with_more = made(|group| {
            group["metadata"]["annotations"] = json!({"of": "KAI"});
            group["spec"]["schedulingBackoff"] = json!(-1);
        });
        let (stood, patches) = ensure_with([exists(), with_more]).await;
        assert_eq!((stood.unwrap(), patches), (Stood::AsMade, Vec::new()));
    }

    #[tokio::test]
    async fn whatever_was_changed_by_which_kai_evicts_or_accounts_is_put_right() {
        type Change = fn(&mut Value);
        let changes: [Change; 6] = [
            |group| group["spec"]["preemptibility"] = json!("preemptible"),
            |group| group["spec"]["preemptibility"] = Value::Null,
            |group| group["spec"]["minMember"] = json!(100),
            |group| group["spec"]["queue"] = json!("another"),
            |group| group["metadata"]["labels"]["kai.scheduler/node-pool"] = json!("another"),
            |group| group["metadata"]["labels"] = Value::Null,
        ];
        for change in changes {
            let changed = made(change);
            let (stood, patches) = ensure_with([exists(), changed.clone(), made(|_| {})]).await;
            assert_eq!(stood.unwrap(), Stood::Changed, "{changed:?}");
            let [patch] = patches.as_slice() else {
                panic!("{patches:?}")
            };
            let mut group = changed.1;
            json_patch::merge(&mut group, patch);
            assert!(objects::is_as_made(&serde_json::from_value(group).unwrap()));
        }
    }

    #[tokio::test]
    async fn a_group_that_goes_meanwhile_has_its_turn_again() {
        let gone = (404, api_double::refused(404, "NotFound"));
        let (stood, _) = ensure_with([exists(), gone]).await;
        assert!(stood.unwrap_err().is_not_found());
    }
}
