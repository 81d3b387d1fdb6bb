//! A pod as the scheduler sees it: what it needs, where it is, how far it is.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    names,
    objects::BindRequest,
    resources::{self, Resources},
};

/// How far a pod is. The first six hold resources of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    /// It has a node and does not run yet.
    Bound,
    /// It has a `BindRequest` that did not fail.
    Binding,
    /// It shall get a `BindRequest` in this cycle.
    Allocated,
    /// It waits for what others release.
    Pipelined,
    /// It is being deleted.
    Releasing,
    Pending,
    Gated,
    Ended,
}

impl Status {
    pub(super) fn holds_a_node(self) -> bool {
        !matches!(self, Self::Pending | Self::Gated | Self::Ended)
    }

    /// Counts against its queue.
    pub(super) fn is_active(self) -> bool {
        self.holds_a_node() && self != Self::Releasing
    }
}

/// A part of each of some GPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) size: ShareSize,
    pub(super) devices: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ShareSize {
    /// Of the GPU's memory.
    Portion(f64),
    Mebibytes(i64),
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) pod: Arc<Pod>,
    pub(super) status: Status,
    pub(super) node: Option<String>,
    /// The shared GPUs that it is on.
    pub(super) groups: Vec<String>,
    pub(super) request: Resources,
    pub(super) share: Option<Share>,
    /// Index of its job in the cluster.
    pub(super) job: Option<usize>,
}

impl Task {
    pub(super) fn new(pod: Arc<Pod>, bind_request: Option<&BindRequest>) -> Self {
        let status = status(&pod, bind_request);
        let bound_to = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let chosen = bind_request.filter(|_| status == Status::Binding);
        let mut request = resources::of_pod(&pod);
        let share = share(&pod);
        if share.is_some() || is_reservation(&pod) {
            // The groups account for the GPU.
            request.set(names::GPU, 0.0);
        }
        Self {
            status,
            node: bound_to.or_else(|| chosen.map(|request| request.spec.selected_node.clone())),
            groups: bind_request.map_or_else(Vec::new, |request| request.spec.selected_gpu_groups.clone()),
            request,
            share,
            job: None,
            pod,
        }
        .with_groups_of_its_labels()
    }

    /// A `BindRequest` wins: only it names all groups of a pod that shares several GPUs.
    fn with_groups_of_its_labels(mut self) -> Self {
        if self.groups.is_empty() && self.share.is_some() {
            let labels = self.pod.labels();
            self.groups.extend(labels.get(names::GPU_GROUP).cloned());
            let several = labels
                .iter()
                .filter(|(key, _)| key.starts_with(names::GPU_GROUP_PREFIX));
            self.groups.extend(several.map(|(_, group)| group.clone()));
        }
        self
    }

    /// `NAMESPACE/NAME`, for messages.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.pod.namespace().unwrap_or_default(), self.pod.name_any())
    }

    pub(super) fn wants_gpus(&self) -> bool {
        self.share.is_some() || self.request.get(names::GPU) > 0.0
    }

    /// The node that someone else nominated.
    pub(super) fn nominated(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref()
    }

    /// Devices as a queue counts them, where every GPU has so much memory.
    pub(super) fn gpus(&self, memory_of_each: i64) -> f64 {
        match self.share {
            Some(share) => share.portion(memory_of_each) * share.devices as f64,
            None => self.request.get(names::GPU),
        }
    }
}

impl Share {
    /// MiB of each GPU.
    pub(super) fn mebibytes(&self, memory_of_each: i64) -> i64 {
        match self.size {
            ShareSize::Portion(portion) => (portion * memory_of_each as f64) as i64,
            ShareSize::Mebibytes(size) => size,
        }
    }

    /// In hundredths, rounded up where it came from MiB.
    pub(super) fn portion(&self, memory_of_each: i64) -> f64 {
        match self.size {
            ShareSize::Portion(portion) => portion,
            ShareSize::Mebibytes(size) if memory_of_each > 0 => {
                (size as f64 / memory_of_each as f64 * 100.0).ceil() / 100.0
            }
            ShareSize::Mebibytes(_) => 1.0,
        }
    }
}

fn status(pod: &Pod, bind_request: Option<&BindRequest>) -> Status {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref();
    let leaves = pod.metadata.deletion_timestamp.is_some();
    let bound = spec.and_then(|spec| spec.node_name.as_ref()).is_some();
    let gated = spec
        .and_then(|spec| spec.scheduling_gates.as_ref())
        .is_some_and(|gates| !gates.is_empty());
    match phase {
        Some("Succeeded" | "Failed") => Status::Ended,
        _ if leaves => Status::Releasing,
        Some("Running") => Status::Running,
        _ if bound => Status::Bound,
        _ if bind_request.is_some() => Status::Binding,
        _ if gated => Status::Gated,
        _ => Status::Pending,
    }
}

/// From the annotations, as KAI's admission left them: where both sizes are there, the portion counts.
fn share(pod: &Pod) -> Option<Share> {
    let annotations = pod.annotations();
    let portion = annotations.get(names::GPU_FRACTION).and_then(|text| text.parse().ok());
    let size = annotations.get(names::GPU_MEMORY).and_then(|text| text.parse().ok());
    let devices = annotations
        .get(names::GPU_FRACTION_DEVICES)
        .and_then(|text| text.parse().ok());
    let size = portion
        .map(ShareSize::Portion)
        .or_else(|| size.map(ShareSize::Mebibytes))?;
    Some(Share {
        size,
        devices: devices.unwrap_or(1),
    })
}

/// It holds a GPU for those that share it.
fn is_reservation(pod: &Pod) -> bool {
    pod.namespace().as_deref() == Some(names::RESERVATION_NAMESPACE)
        && pod.labels().get("app").is_some_and(|app| app == names::RESERVATION_APP)
}
