//! One action on the API server. Only what was seen is changed: whatever became of it meanwhile is a conflict.

use std::collections::BTreeMap;

use berth_runtime::kubernetes::{ApiError, DEADLINE, within};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{
    MANAGER,
    plan::{Action, Sealed, Version},
};
use crate::names::{ADDITIONAL_PULL_SECRET, MANAGED_BY};

/// Whether anything was changed by it: who deletes what is gone already, because the watch is late, changes nothing.
pub(super) async fn write(client: &Client, action: &Action) -> Result<bool, ApiError> {
    let (namespace, name) = action.place();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match action {
        Action::Create { source, .. } => create(&secrets, source).await,
        Action::Update { source, copy } => {
            let as_ours = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(patch(source, copy));
            within(DEADLINE, secrets.patch(name, &as_ours, &patch))
                .await
                .map(|_| true)
        }
        Action::Replace { source, copy } => {
            delete(&secrets, copy).await?;
            create(&secrets, source).await
        }
        Action::Delete { copy } => delete(&secrets, copy).await,
    }
}

async fn create(secrets: &Api<Secret>, source: &Sealed) -> Result<bool, ApiError> {
    let as_ours = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    within(DEADLINE, secrets.create(&as_ours, &copy_of(source)))
        .await
        .map(|_| true)
}

async fn delete(secrets: &Api<Secret>, copy: &Version) -> Result<bool, ApiError> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: copy.uid.clone(),
            resource_version: copy.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    match within(DEADLINE, secrets.delete(&copy.name, &params)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn labels() -> [(&'static str, &'static str); 2] {
    [(MANAGED_BY, MANAGER), (ADDITIONAL_PULL_SECRET, "true")]
}

/// Data and type, nothing else: labels and owners of the source mean nothing elsewhere, and a copy must be able to follow.
fn copy_of(source: &Sealed) -> Secret {
    let labels = labels().map(|(label, value)| (label.to_owned(), value.to_owned()));
    Secret {
        metadata: ObjectMeta {
            name: source.0.metadata.name.clone(),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        },
        data: source.0.data.clone(),
        type_: source.0.type_.clone(),
        ..Secret::default()
    }
}

/// A merge patch: keys that the source does not have are taken away, others' labels stay.
fn patch(source: &Sealed, copy: &Sealed) -> Value {
    let mut data = serde_json::Map::new();
    for key in copy.0.data.iter().flatten().map(|(key, _)| key) {
        data.insert(key.clone(), Value::Null);
    }
    for (key, value) in source.0.data.iter().flatten() {
        data.insert(key.clone(), json!(value));
    }
    let version = &copy.0.metadata.resource_version;
    let labels = BTreeMap::from(labels());
    json!({"metadata": {"resourceVersion": version, "labels": labels}, "data": data})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn secret(secret: Value) -> Sealed {
        Sealed(Arc::new(serde_json::from_value(secret).unwrap()))
    }

    #[test]
    fn a_copy_takes_data_and_type_and_leaves_the_rest_of_the_source_behind() {
        let source = secret(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "o"}]},
            "immutable": true, "type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30="},
        }));
        let labels = BTreeMap::from(labels());
        assert_eq!(
            serde_json::to_value(copy_of(&source)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": labels},
                "type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30="},
            })
        );
    }

    #[test]
    fn a_patch_is_for_the_version_that_was_seen_and_takes_foreign_keys_away() {
        let source = secret(json!({"metadata": {"name": "s"}, "data": {"a": "MQ==", "b": "Mg=="}}));
        let copy =
            secret(json!({"metadata": {"name": "s", "resourceVersion": "9"}, "data": {"b": "AA==", "c": "AA=="}}));
        let patch = patch(&source, &copy);
        assert_eq!(patch["metadata"]["resourceVersion"], "9");
        assert_eq!(patch["data"], json!({"a": "MQ==", "b": "Mg==", "c": null}));
    }
}
