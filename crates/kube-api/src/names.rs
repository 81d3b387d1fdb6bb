//! Labels, annotations and resource names: ours, and those of others that we read.

/// Berth's own.
pub mod berth {
    pub const API_GROUP: &str = "gpu.berth.dev";
    /// Annotation on a pod: the decision (node, devices, policy, id). Also the name of the scheduling gate.
    pub const PLACEMENT: &str = "gpu.berth.dev/placement";
    /// Label on a node: the worst health of its devices.
    pub const HEALTH: &str = "gpu.berth.dev/health";
    /// Label on a node: the short model name of its GPUs.
    pub const MODEL: &str = "gpu.berth.dev/model";
    /// Taint of a node none of whose GPUs is usable.
    pub const UNHEALTHY: &str = "gpu.berth.dev/unhealthy";
    /// Annotation on a node that berthd cordoned: another's cordon it does not undo.
    pub const CORDONED: &str = "gpu.berth.dev/cordoned";
    /// Annotation on a pod that KAI's bind mode owns until it is bound or handed over; its value is the `PodGroup` that the
    /// pod came with, or empty.
    pub const KAI_BIND: &str = "gpu.berth.dev/kai-bind";
    /// Label on a pod that is no function pod: "true" puts it in Berth's hands, "false" keeps a function pod out of them.
    pub const MANAGED: &str = "gpu.berth.dev/managed";
}

/// NVIDIA's device plugin and GPU feature discovery.
pub mod nvidia {
    /// Extended resource: whole GPUs.
    pub const GPU: &str = "nvidia.com/gpu";
    /// Extended resources of MIG instances in the "mixed" strategy: `nvidia.com/mig-1g.10gb`.
    pub const MIG_PREFIX: &str = "nvidia.com/mig-";
    /// Node label: the product with dashes for blanks, `NVIDIA-H100-80GB-HBM3`.
    pub const PRODUCT: &str = "nvidia.com/gpu.product";
    /// Node label: MiB of each GPU.
    pub const MEMORY: &str = "nvidia.com/gpu.memory";
    /// Node label: number of GPUs.
    pub const COUNT: &str = "nvidia.com/gpu.count";
}

/// NVCF's cluster agent.
pub mod nvcf {
    /// Pod annotation: what was paid for, `NCP.GPU.H100_8x`.
    pub const INSTANCE_TYPE_NAME: &str = "nvcf.nvidia.io/instance-type-name";
    /// Node label: the instance type without its number of GPUs, `NCP.GPU.H100`.
    pub const INSTANCE_TYPE: &str = "nvca.nvcf.nvidia.io/instance-type";
    /// Node label: an administrator's own name for the GPU model.
    pub const PRODUCT_OVERRIDE: &str = "nvca.nvcf.nvidia.io/gpu.product";
    /// Pod label of a function.
    pub const FUNCTION_VERSION_ID: &str = "function-version-id";
    /// Pod label of a task.
    pub const TASK_ID: &str = "task-id";
}

/// KAI Scheduler.
pub mod kai {
    /// Pod annotation: a portion of one GPU, above 0 and at most 1.
    pub const GPU_FRACTION: &str = "gpu-fraction";
    /// Pod annotation: MiB of one GPU.
    pub const GPU_MEMORY: &str = "gpu-memory";
    /// Pod annotation: that portion or memory on each of so many GPUs.
    pub const GPU_FRACTION_DEVICES: &str = "gpu-fraction-num-devices";
    /// `spec.schedulerName` of the pods that it places.
    pub const SCHEDULER: &str = "kai-scheduler";
    /// Pod annotation: the name of its `PodGroup`. Without it KAI does not look at the pod.
    pub const POD_GROUP: &str = "pod-group-name";
    /// Pod annotation "true": podgrouper leaves the pod alone (KAI 0.15 and later).
    pub const SKIP_PODGROUPER: &str = "kai.scheduler/skip-podgrouper";
    /// Label: the queue.
    pub const QUEUE: &str = "kai.scheduler/queue";
    /// Where there is no such label.
    pub const DEFAULT_QUEUE: &str = "default-queue";
    /// Label: `preemptible` or `non-preemptible`.
    pub const PREEMPTIBILITY: &str = "kai.scheduler/preemptibility";
    /// Label: the priority class of the pod's group.
    pub const PRIORITY_CLASS: &str = "priorityClassName";
    /// The class of what must not be evicted for others: 125, and 100 is the border.
    pub const INFERENCE: &str = "inference";
    /// Label of nodes, and of everything that belongs to such a pool.
    pub const NODE_POOL: &str = "kai.scheduler/node-pool";
    /// Label of a `BindRequest`: its node.
    pub const SELECTED_NODE: &str = "selected-node";
    /// Where the pods live that hold shared GPUs.
    pub const RESERVATION_NAMESPACE: &str = "kai-resource-reservation";
    /// Label of such a pod: the name of the group that shares the GPU.
    pub const GPU_GROUP: &str = "runai-gpu-group";
    /// Annotation of such a pod: the UUID of the GPU, in spite of its name.
    pub const RESERVED_GPU: &str = "run.ai/reserve_for_gpu_index";
}
