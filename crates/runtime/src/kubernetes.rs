//! The way to the Kubernetes API server: where it is, a client with time limits, writes that repeat safely.
//!
//! Owns no object and no watch; what is read and written is its users' business.

use std::{fmt::Debug, future::Future, path::PathBuf, time::Duration};

use clap::{CommandFactory, error::ErrorKind};
use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde::{
    Serialize,
    de::{DeserializeOwned, Error as _},
};
use thiserror::Error;

use crate::{BuildInfo, Misread};

pub mod lease;
#[cfg(test)]
mod tests;
pub mod watch;

/// A connection is made within this, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a usual request may take. The API server itself ends requests after 60 s.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// What the kubelet tells every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Which cluster a program belongs to.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// Talk to the API server of this kubeconfig. Without it, a pod uses its service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Where the API server and the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Kubeconfig(PathBuf),
    /// The pod's service account; its token is re-read as the kubelet renews it.
    ServiceAccount,
}

/// There is no way to the API server by what was given. Whether it answers shows later.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("cannot use the kubeconfig {path}: give another one by --kubeconfig", path = path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: Box<KubeconfigError>,
    },
    #[error("cannot use the pod's service account: is automountServiceAccountToken off?")]
    ServiceAccount(#[source] Box<InClusterError>),
    #[error("no client can be made from the configuration of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// A request to the API server that brought no result.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("the API server did not answer within {0:?}")]
    Deadline(Duration),
    #[error("the API server refused")]
    Refused(#[source] Box<kube::core::Status>),
    #[error("the API server cannot be reached")]
    Unavailable(#[source] Box<kube::Error>),
}

impl KubernetesArgs {
    /// `None`: this process has nothing to do with Kubernetes.
    pub fn access(&self) -> Option<Access> {
        self.access_in(std::env::var_os(IN_CLUSTER).is_some_and(|host| !host.is_empty()))
    }

    /// For a program of `T` that is nothing without Kubernetes: the process ends as for a mistake in its flags.
    pub fn required<T: CommandFactory>(&self) -> Access {
        self.access().unwrap_or_else(|| {
            let message = "this is not a pod: give --kubeconfig\n";
            T::command().error(ErrorKind::MissingRequiredArgument, message).exit()
        })
    }

    fn access_in(&self, is_pod: bool) -> Option<Access> {
        let given = self.kubeconfig.clone().map(Access::Kubeconfig);
        given.or_else(|| is_pod.then_some(Access::ServiceAccount))
    }
}

impl Access {
    /// A client that says who it is. Sends nothing yet.
    ///
    /// # Errors
    /// The files cannot be read, or hold nothing that can be used.
    pub async fn client(&self, build: BuildInfo) -> Result<Client, AccessError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        // Who asks knows how long the answer is worth waiting for, and backs off by itself.
        config.default_retry = false;
        if let Ok(agent) = HeaderValue::from_str(&format!("{}/{}", build.name, build.version)) {
            config.headers.push((USER_AGENT, agent));
        }
        Client::try_from(config).map_err(|error| AccessError::Client(Box::new(error)))
    }

    async fn config(&self) -> Result<Config, AccessError> {
        let path = match self {
            Self::ServiceAccount => {
                return Config::incluster().map_err(|error| AccessError::ServiceAccount(Box::new(error)));
            }
            Self::Kubeconfig(path) => path.clone(),
        };
        let read = async {
            let file = Kubeconfig::read_from(&path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
        };
        read.await.map_err(|source| AccessError::Kubeconfig {
            path: path.clone(),
            source: Box::new(source),
        })
    }
}

impl ApiError {
    /// Stable, for events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deadline(_) => "ApiDeadline",
            Self::Unavailable(_) => "ApiUnavailable",
            Self::Refused(status) if status.is_not_found() => "ApiNotFound",
            Self::Refused(status) if status.is_already_exists() => "ApiAlreadyExists",
            Self::Refused(status) if status.is_conflict() => "ApiConflict",
            Self::Refused(status) if status.is_forbidden() => "ApiForbidden",
            Self::Refused(status) if status.is_invalid() => "ApiInvalid",
            Self::Refused(status) if status.code == 401 => "ApiUnauthorized",
            Self::Refused(status) if status.code == 429 => "ApiTooManyRequests",
            Self::Refused(status) if status.code >= 500 => "ApiServerError",
            Self::Refused(_) => "ApiRefused",
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_not_found())
    }

    /// The object is there already, or is another one than was expected.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_conflict() || status.is_already_exists())
    }

    /// Who asks may not do this, or nobody may.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_forbidden())
    }

    /// The API server will never take the object as it is.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_invalid())
    }

    /// Whether the API server may have done what it was asked all the same.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Unavailable(_) => true,
            Self::Refused(status) => status.code >= 500,
        }
    }

    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Unavailable(_) => true,
            Self::Refused(status) => status.code == 429 || status.code >= 500,
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Unavailable(Box::new(unquoted(other))),
        }
    }
}

/// An answer that cannot be read may hold secrets, and the parser's error quotes it.
fn unquoted(error: kube::Error) -> kube::Error {
    match error {
        kube::Error::SerdeError(error) => kube::Error::SerdeError(serde_json::Error::custom(Misread::from(error))),
        other => other,
    }
}

/// The request's answer, or the end of its time.
///
/// # Errors
/// What the API server said, or that it said nothing.
pub async fn within<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    let answered = tokio::time::timeout(limit, request).await;
    Ok(answered.map_err(|_elapsed| ApiError::Deadline(limit))??)
}

/// Server-side apply: the fields of `object` become as they are there and belong to `manager`, whoever had them before.
/// Repeating it changes nothing.
///
/// # Errors
/// What the API server said, or that it said nothing within [`DEADLINE`].
pub async fn apply<K>(api: &Api<K>, object: &K, manager: &str) -> Result<K, ApiError>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let as_ours = PatchParams::apply(manager).force();
    within(DEADLINE, api.patch(&object.name_any(), &as_ours, &Patch::Apply(object))).await
}
