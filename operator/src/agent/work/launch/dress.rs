//! What every object of a wish carries: whose it is, and for pods where they may run. Pure.

use berth_kube_api::names::{nvcf, nvidia};
use k8s_openapi::{
    api::core::v1::{LocalObjectReference, Pod},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::api::ObjectMeta;

use super::Site;
use crate::{
    agent::work::message::Wish,
    webhook::{has_gpus, place},
};

/// Kubernetes' longest label.
const LABEL: usize = 63;

pub(super) fn metadata(metadata: &mut ObjectMeta, wish: &Wish, site: &Site, owner: Option<&OwnerReference>) {
    metadata.namespace = Some(site.namespace.clone());
    metadata.owner_references = owner.map(|owner| vec![owner.clone()]);
    let message = &wish.message;
    let labels = metadata.labels.get_or_insert_default();
    let mut label = |key: &str, value: &str| {
        if !value.is_empty() && value.len() <= LABEL {
            labels.insert(key.to_owned(), value.to_owned());
        }
    };
    label("icms-request-id", &message.request_id);
    label("nvcf.nvidia.io/message-batch-id", &message.message_batch_id);
    label("nca-id", &format!("nca-{}-nca", message.nca_id));
    label("gpu-name", &wish.gpu);
}

pub(super) fn pod(pod: &mut Pod, instance: &str, wish: &Wish, site: &Site, owner: Option<&OwnerReference>) {
    metadata(&mut pod.metadata, wish, site, owner);
    pod.metadata.name = Some(instance.to_owned());
    labels(pod, wish);
    annotations(pod, wish, site);
    let spec = pod.spec.get_or_insert_default();
    spec.automount_service_account_token = Some(false);
    let pull = spec.image_pull_secrets.get_or_insert_default();
    for name in &site.pull_secrets {
        if !pull.iter().any(|there| there.name == *name) {
            pull.push(LocalObjectReference { name: name.clone() });
        }
    }
    if !has_gpus(spec) {
        let named = spec
            .containers
            .iter()
            .position(|it| matches!(it.name.as_str(), "inference" | "task"));
        if let Some(container) = spec.containers.get_mut(named.unwrap_or_default()) {
            let resources = container.resources.get_or_insert_default();
            for side in [&mut resources.limits, &mut resources.requests] {
                let gpus = Quantity(wish.gpus.to_string());
                side.get_or_insert_default().insert(nvidia::GPU.to_owned(), gpus);
            }
        }
    }
    place(pod, &site.gates);
}

fn labels(pod: &mut Pod, wish: &Wish) {
    let message = &wish.message;
    let details = message.function_details.clone().unwrap_or_default();
    let function = message.function_id.clone().or(details.function_id);
    let version = message.function_version_id.clone().or(details.function_version_id);
    let task = message.task_details.as_ref().map(|task| task.task_id.clone());
    let launch = &message.launch_specification;
    let other = |key: &str| {
        launch
            .other
            .get(key)
            .and_then(|value| value.as_str())
            .map(str::to_owned)
    };
    let environment = launch.icms_environment.clone();
    let nca = Some(format!("nca-{}-nca", message.nca_id));
    let labels = pod.metadata.labels.get_or_insert_default();
    for (key, value) in [
        ("function-id", &function),
        ("FUNCTION_ID", &function),
        (nvcf::FUNCTION_VERSION_ID, &version),
        ("FUNCTION_VERSION_ID", &version),
        (nvcf::TASK_ID, &task),
        ("TASK_ID", &task),
        ("NCA_ID", &nca),
        ("environment", &environment),
        ("ENVIRONMENT", &environment),
        ("performance_class", &Some(wish.type_value().to_owned())),
        ("GPU_COUNT", &Some(wish.gpus.to_string())),
        ("nvcf.nvidia.io/deployment-id", &other("deploymentId")),
        ("nvcf.nvidia.io/gpu-specification-id", &other("gpuSpecificationId")),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty() && value.len() <= LABEL) {
            labels.insert(key.to_owned(), value.clone());
        }
    }
}

fn annotations(pod: &mut Pod, wish: &Wish, site: &Site) {
    let message = &wish.message;
    let environment = message
        .launch_specification
        .icms_environment
        .clone()
        .unwrap_or_default();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    for (key, value) in [
        ("icms-request-id", message.request_id.as_str()),
        ("nca-id", &message.nca_id),
        (
            "icms-cluster-group",
            message.cluster_group.as_deref().unwrap_or_default(),
        ),
        ("instance-count", &wish.instances.to_string()),
        ("nvcf.nvidia.io/region", &site.region),
        ("nvcf.nvidia.io/backend", &site.cluster_name),
        (nvcf::INSTANCE_TYPE_NAME, &message.instance_type_name),
        ("nvcf.nvidia.io/instance-type-value", wish.type_value()),
        ("nvcf.nvidia.io/environment", &environment),
    ] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
}
