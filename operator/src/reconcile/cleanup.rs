//! The clean-up before the chart is uninstalled: asks the operator to take everything down, does it itself where nobody does, and
//! looks whether everything is gone.
//!
//! Owns that order. Repeating it is harmless; where nothing is left it says so.

use std::time::Duration;

use berth_kube_api::nvcf::NvcfBackend;
use berth_runtime::{
    args::{HumanDuration, TelemetryArgs},
    kubernetes::{ApiError, DEADLINE, KubernetesArgs, within},
};
use clap::Parser;
use k8s_openapi::api::{
    core::v1::ConfigMap,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::teardown::{Progress, Report, Teardown};
use crate::names;

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA_OPERATOR_CLEANUP";
const LOOK: Duration = Duration::from_millis(500);
/// After the API server was away.
const RETRY: Duration = Duration::from_secs(2);

/// Takes down what nvca-operator made, before the chart is uninstalled; 0 when nothing is left
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "nvca-operator-cleanup", version)]
pub struct Args {
    /// Namespace of the operator
    #[arg(long, value_name = "NAMESPACE", default_value = names::OPERATOR_NAMESPACE)]
    pub namespace: String,

    /// The operator's ClusterRole: a finalizer of an older chart is taken off
    #[arg(long, value_name = "NAME", default_value = "nvca-operator")]
    pub cluster_role_name: String,

    /// The operator's ClusterRoleBinding: a finalizer of an older chart is taken off
    #[arg(long, value_name = "NAME", default_value = "nvca-operator")]
    pub cluster_role_binding_name: String,

    /// How long to wait for functions to end, and for namespaces to go
    #[arg(long, value_name = "DURATION", default_value = "25s")]
    pub drain_timeout: HumanDuration,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Only the log hears it.
struct Log;

impl Progress for Log {
    async fn tell(&mut self, message: String) {
        info!("{message}");
    }
}

/// All of it. What is still there comes back. An API server that is away is waited for: whoever set a deadline ends it.
///
/// # Errors
/// The API server refused what it was asked.
pub async fn run(client: Client, args: &Args) -> Result<Report, ApiError> {
    loop {
        match once(client.clone(), args).await {
            Err(failure) if failure.is_transient() => {
                let error = &failure as &dyn std::error::Error;
                warn!(
                    error,
                    reason = failure.reason(),
                    "the clean-up waits for the API server"
                );
                sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

/// From the beginning, which costs nothing where it is done already.
async fn once(client: Client, args: &Args) -> Result<Report, ApiError> {
    let backends: Api<NvcfBackend> = Api::namespaced(client.clone(), &args.namespace);
    let drain = args.drain_timeout.0;
    // The operator drains, and waits for namespaces.
    let until = Instant::now() + drain * 2 + Duration::from_secs(10);
    let mut report = Report::default();
    while let Some(backend) = first(&backends).await? {
        let name = backend.name_any();
        if backend.metadata.deletion_timestamp.is_none() {
            info!(name, "deleting the NVCFBackend: the operator takes everything down");
            within(DEADLINE, backends.delete(&name, &DeleteParams::default())).await?;
        } else if Instant::now() > until {
            warn!(name, "no operator does it: doing it");
            report = teardown(&client, drain).await?;
            free(&backends, &name, names::BACKEND_FINALIZER).await?;
        }
        sleep(LOOK).await;
    }
    // Left by an operator that died half-way, or nothing.
    let rest = teardown(&client, drain).await?;
    report.freed.extend(rest.freed);
    report.left = rest.left;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    free(&roles, &args.cluster_role_name, names::CLEANUP_FINALIZER).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    free(&bindings, &args.cluster_role_binding_name, names::CLEANUP_FINALIZER).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &args.namespace);
    free(&maps, names::SENTINEL, names::CLEANUP_FINALIZER).await?;
    Ok(report)
}

async fn teardown(client: &Client, drain: Duration) -> Result<Report, ApiError> {
    let client = client.clone();
    Teardown { client, drain }.run(&mut Log).await
}

/// Without the definition there is none.
async fn first(backends: &Api<NvcfBackend>) -> Result<Option<NvcfBackend>, ApiError> {
    match within(DEADLINE, backends.list(&ListParams::default())).await {
        Ok(list) => Ok(list.items.into_iter().next()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes that finalizer off, and no other.
async fn free<K>(api: &Api<K>, name: &str, finalizer: &str) -> Result<(), ApiError>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let Some(object) = within(DEADLINE, api.get_opt(name)).await? else {
        return Ok(());
    };
    if !object.finalizers().iter().any(|it| it == finalizer) {
        return Ok(());
    }
    let others: Vec<&String> = object.finalizers().iter().filter(|it| *it != finalizer).collect();
    info!(object = name, finalizer, "taking the finalizer off");
    let patch = Patch::Merge(json!({"metadata": {"finalizers": others}}));
    match within(DEADLINE, api.patch(name, &PatchParams::default(), &patch)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
