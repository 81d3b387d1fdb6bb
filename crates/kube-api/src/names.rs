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
}
