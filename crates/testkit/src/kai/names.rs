//! Names that KAI Scheduler fixed, and that others rely on.

/// `spec.schedulerName` of the pods that KAI places.
pub const SCHEDULER: &str = "kai-scheduler";
/// Pod annotation: the name of its `PodGroup`.
pub const POD_GROUP: &str = "pod-group-name";
/// Annotation of a pod or of one of its owners: podgrouper leaves it alone (KAI 0.15 and later).
pub const SKIP_PODGROUPER: &str = "kai.scheduler/skip-podgrouper";
/// Label of a pod or of its owner: the queue.
pub const QUEUE: &str = "kai.scheduler/queue";
/// Label of a pod or of its owner: `preemptible` or `non-preemptible`.
pub const PREEMPTIBILITY: &str = "kai.scheduler/preemptibility";
/// Label of a pod or of its owner: the priority class of the group.
pub const PRIORITY_CLASS: &str = "priorityClassName";
/// Label of nodes and of everything that belongs to a shard.
pub const NODE_POOL: &str = "kai.scheduler/node-pool";
/// Annotation of a `PodGroup`: what made it.
pub const TOP_OWNER: &str = "kai.scheduler/top-owner-metadata";
/// Label of a `BindRequest`: its node.
pub const SELECTED_NODE: &str = "selected-node";

/// Pod annotation: a portion of one GPU.
pub const GPU_FRACTION: &str = "gpu-fraction";
/// Pod annotation: MiB of one GPU.
pub const GPU_MEMORY: &str = "gpu-memory";
/// Pod annotation: that much on each of so many GPUs.
pub const GPU_FRACTION_DEVICES: &str = "gpu-fraction-num-devices";
/// Label of a pod that shares a GPU, and of the pod that holds that GPU.
pub const GPU_GROUP: &str = "runai-gpu-group";
/// Start of the labels of a pod that shares several GPUs: `runai-gpu-group/GROUP=GROUP`.
pub const GPU_GROUP_PREFIX: &str = "runai-gpu-group/";
/// Annotation of a reservation pod: the UUID of the GPU that it holds.
pub const RESERVED_GPU: &str = "run.ai/reserve_for_gpu_index";
/// Pod annotation, set by KAI's admission webhook: how the pod's `ConfigMap`s start.
pub const SHARED_GPU_CONFIG_MAP: &str = "runai/shared-gpu-configmap";
/// Pod annotation, set by the binder: `Regular` or `Fraction`.
pub const RECEIVED_RESOURCE_TYPE: &str = "received-resource-type";

/// Where reservation pods live.
pub const RESERVATION_NAMESPACE: &str = "kai-resource-reservation";
/// Label `app` of reservation pods.
pub const RESERVATION_APP: &str = "kai-resource-reservation";

pub const DEFAULT_PARENT_QUEUE: &str = "default-parent-queue";
pub const DEFAULT_QUEUE: &str = "default-queue";

/// Extended resource: whole GPUs.
pub const GPU: &str = "nvidia.com/gpu";
/// Node label: MiB of each GPU.
pub const NODE_GPU_MEMORY: &str = "nvidia.com/gpu.memory";

/// The chart's priority classes. Below 100 a group may be evicted, unless its preemptibility says otherwise.
pub const PRIORITY_CLASSES: [(&str, i32); 4] = [
    ("train", 50),
    ("build-preemptible", 75),
    ("build", 100),
    ("inference", 125),
];
/// The priority of a group without a known class.
pub const DEFAULT_PRIORITY: i32 = 50;
