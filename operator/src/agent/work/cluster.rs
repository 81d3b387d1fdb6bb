//! The Kubernetes side of wishes: their `ICMSRequest`s, pods and what these need. Every write may be repeated.

use berth_kube_api::nvcf::icms_request::{ICMSRequest, ICMSRequestStatus};
use berth_runtime::kubernetes::{ApiError, DEADLINE, apply, within};
use futures_util::stream::BoxStream;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use serde_json::json;

use super::{
    launch::Launch,
    watch::{Change, follow},
};
use crate::names;

/// Label of every object of a wish.
const OURS: &str = "icms-request-id";

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    requests: Api<ICMSRequest>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    patch: PatchParams,
}

impl Cluster {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self {
            requests: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            patch: PatchParams::default(),
        }
    }

    pub(super) fn follow_requests(&self) -> BoxStream<'static, Change<ICMSRequest>> {
        follow(self.requests.clone(), watcher::Config::default())
    }

    pub(super) fn follow_pods(&self) -> BoxStream<'static, Change<Pod>> {
        follow(self.pods.clone(), watcher::Config::default().labels(OURS))
    }

    /// The reference to the stored object.
    pub(super) async fn store(&self, request: &ICMSRequest) -> Result<OwnerReference, ApiError> {
        let created = within(DEADLINE, self.requests.create(&PostParams::default(), request)).await;
        let stored = match created {
            Err(error) if error.is_conflict() => {
                let name = request.metadata.name.as_deref().unwrap_or_default();
                within(DEADLINE, self.requests.get(name)).await?
            }
            created => created?,
        };
        Ok(reference(&stored))
    }

    /// An object that is gone needs no status.
    pub(super) async fn save(&self, name: &str, status: &ICMSRequestStatus) -> Result<(), ApiError> {
        let patch = Patch::Merge(json!({"status": status}));
        let saved = self.requests.patch_status(name, &self.patch, &patch);
        gone_is_well(within(DEADLINE, saved).await)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let background = DeleteParams::background();
        gone_is_well(within(DEADLINE, self.requests.delete(name, &background)).await)?;
        self.release(name).await
    }

    /// Takes our finalizer away, and leaves those of others.
    pub(super) async fn release(&self, name: &str) -> Result<(), ApiError> {
        let Some(object) = within(DEADLINE, self.requests.get_opt(name)).await? else {
            return Ok(());
        };
        let others = object.metadata.finalizers.unwrap_or_default().into_iter();
        let others: Vec<_> = others.filter(|it| it != names::REQUEST_FINALIZER).collect();
        let version = object.metadata.resource_version;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": others, "resourceVersion": version}}));
        gone_is_well(within(DEADLINE, self.requests.patch(name, &self.patch, &patch)).await)
    }

    /// One instance, and all that every instance of the wish needs.
    pub(super) async fn make(&self, launch: &Launch, instance: &str) -> Result<(), ApiError> {
        for secret in &launch.secrets {
            apply(&self.secrets, secret, names::AGENT).await?;
        }
        for map in &launch.config_maps {
            apply(&self.config_maps, map, names::AGENT).await?;
        }
        let Some(pod) = launch.pods.get(instance) else {
            return Ok(());
        };
        match within(DEADLINE, self.pods.create(&PostParams::default(), pod)).await {
            // A conflict may also be a quota's, and then there is no pod.
            Err(error) if error.reason() == "ApiAlreadyExists" => Ok(()),
            created => created.map(drop),
        }
    }

    /// With the pod's own grace.
    /// With a version: if it is still that one.
    pub(super) async fn delete(&self, instance: &str, version: Option<String>) -> Result<(), ApiError> {
        let preconditions = version.map(|version| Preconditions {
            resource_version: Some(version),
            uid: None,
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        within(DEADLINE, self.pods.delete(instance, &params)).await.map(drop)
    }

    /// At once: its node does not answer.
    pub(super) async fn purge(&self, instance: &str) -> Result<(), ApiError> {
        let at_once = DeleteParams::default().grace_period(0);
        within(DEADLINE, self.pods.delete(instance, &at_once)).await.map(drop)
    }
}

pub(super) fn reference(request: &ICMSRequest) -> OwnerReference {
    OwnerReference {
        api_version: "nvca.nvcf.nvidia.io/v2beta1".to_owned(),
        kind: "ICMSRequest".to_owned(),
        name: request.metadata.name.clone().unwrap_or_default(),
        uid: request.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

fn gone_is_well<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    /// An API server that says this to whatever it is asked.
    fn saying(code: u16, answer: Value) -> Cluster {
        let service = tower::service_fn(move |_: Request<Body>| {
            let answer = Response::builder()
                .status(code)
                .body(Body::from(answer.to_string().into_bytes()));
            async move { answer }
        });
        Cluster::new(&Client::new(service, "nvcf-backend"), "nvcf-backend")
    }

    fn launch() -> Launch {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "0-sr-a"}})).unwrap();
        Launch {
            pods: [("0-sr-a".to_owned(), pod)].into(),
            secrets: Vec::new(),
            config_maps: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_there_already_is_made_and_one_that_a_quota_kept_out_is_not() {
        let status = |reason: &str| json!({"status": "Failure", "code": 409, "reason": reason, "message": "m"});
        let there = saying(409, status("AlreadyExists"));
        there.make(&launch(), "0-sr-a").await.unwrap();
        let kept_out = saying(409, status("Conflict"));
        let error = kept_out.make(&launch(), "0-sr-a").await.unwrap_err();
        assert_eq!(error.reason(), "ApiConflict");
    }
}
