//! Names that the control plane's documentation, its scripts or its users know. Owns no logic.
//!
//! Source: the page "Self-Managed Clusters" of NVCF's documentation and what the real programs do on a cluster.

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "nvca-operator";
/// Where the agent runs.
pub const SYSTEM_NAMESPACE: &str = "nvca-system";
/// Where functions run.
pub const BACKEND_NAMESPACE: &str = "nvcf-backend";
/// Where models are fetched ahead.
pub const MODEL_CACHE_NAMESPACE: &str = "nvca-modelcache-init";

/// ConfigMap of the chart: what the cluster wants to be.
pub const CLUSTER_DTO: &str = "nvcfbackend-self-managed";
/// Its key.
pub const CLUSTER_DTO_KEY: &str = "cluster-dto.yaml";
/// ConfigMap of the bootstrap: who the cluster is.
pub const REGISTRATION: &str = "nvca-cluster-registration";
/// Its keys.
pub const CLUSTER_ID_KEY: &str = "clusterId";
pub const CLUSTER_GROUP_ID_KEY: &str = "clusterGroupId";

/// The agent's name: of its Deployment, Service, ServiceAccount, ClusterRole, webhook configurations.
pub const AGENT: &str = "nvca";
/// ConfigMap in [`SYSTEM_NAMESPACE`]: the agent's configuration.
pub const AGENT_CONFIG: &str = "agent-config";
/// ConfigMap of the chart: what is merged into the one before.
pub const AGENT_CONFIG_MERGE: &str = "agent-config-merge";
/// Its key.
pub const AGENT_CONFIG_KEY: &str = "config.yaml";
/// Secret of type `kubernetes.io/tls`.
pub const WEBHOOK_CERTIFICATE: &str = "nvca-webhook-tls-server-certs";
/// Secret with `ca.pem`.
pub const WEBHOOK_CA: &str = "nvca-webhook-tls-ca-certs";
/// ConfigMap whose deletion tells the operator that it is uninstalled.
pub const SENTINEL: &str = "nvca-operator-shutdown-sentinel";

/// On an `NVCFBackend`: the operator has to tidy up.
pub const BACKEND_FINALIZER: &str = "nvca-operator.finalizers.nvidia.io";
/// On the operator's own ClusterRole, binding and sentinel.
pub const CLEANUP_FINALIZER: &str = "nvca.nvcf.nvidia.io/operator-cleanup";
/// On an `ICMSRequest`.
pub const REQUEST_FINALIZER: &str = "nvca.finalizers.nvidia.io";

/// Label of a namespace with workloads: `pod_spec` or `miniservice`.
pub const WORKLOAD_INSTANCE_TYPE: &str = "nvca.nvcf.nvidia.io/workload-instance-type";
/// What the name of a namespace begins with that was made for workloads.
pub const WORKLOAD_PREFIX: &str = "sr-";
/// Label of a copied pull secret: `true`.
pub const ADDITIONAL_PULL_SECRET: &str = "nvca.nvcf.nvidia.io/additional-image-pull-secret";
/// Annotation of an `NVCFBackend`: another value rolls the agent out again.
pub const FORCED_ROLLOUT_AT: &str = "nvca.nvcf.nvidia.io/forcedRolloutAt";
/// Kubernetes' recommended label.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Kubernetes' recommended label.
pub const NAME: &str = "app.kubernetes.io/name";
/// Kubernetes' recommended label.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Helm leaves an object with the value `keep` where it is.
pub const HELM_RESOURCE_POLICY: &str = "helm.sh/resource-policy";

/// The cluster's way to SIS where nothing else is said.
pub const DEFAULT_SIS_URL: &str = "http://api.sis.svc.cluster.local:8080";
/// The control plane's NATS where nothing else is said.
pub const DEFAULT_NATS_URL: &str = "nats://nats.nats-system.svc.cluster.local:4222";
/// The control plane's renderer of Helm charts where nothing else is said.
pub const DEFAULT_REVAL_URL: &str = "http://reval.nvcf.svc.cluster.local:8080";
/// Where OpenBao's agent renders the tokens.
pub const SECRETS_FILE: &str = "/home/app/vault/secrets.json";
